/*
 * hold.c: a step that the gate is going to refuse starts no program at all.
 *
 * The gate ends each task before its program begins. But to Slurm such a task has ended, and when
 * one has ended slurmstepd runs the user's task epilog (srun --task-epilog=/bin/bash, with BASH_ENV
 * in the environment), behind no hook of a plugin's. So slurmstepd itself, and with it whatever it
 * forks, loses execve in such a step. Of its own it starts nothing but helpers of the extern
 * step, which has no tasks and no epilog of the user's, and is let alone: job_container's script
 * and xauth belong to it.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "enclave.h"

#if defined(__x86_64__)
#define ENCLAVE_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ENCLAVE_ARCH AUDIT_ARCH_AARCH64
#else
#error "which architecture seccomp calls this one is not known here"
#endif

/* The first number of the x32 calls, which have an execve of their own. No other call is so high.
 */
#define ENCLAVE_X32 0x40000000U

/* SLURM_EXTERN_CONT: step ids of Slurm's own, the same since 20.11. */
#define ENCLAVE_STEP_EXTERN 0xfffffffcU

/* enclave_no_programs - the calling thread, and all that it forks, starts no program any more; 0 or
 * -1 */
int enclave_no_programs(void)
{
	struct sock_filter only[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ENCLAVE_ARCH, 0, 5),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, ENCLAVE_X32, 3, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_execve, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_execveat, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EACCES),
	};
	struct sock_fprog program = { .len = sizeof(only) / sizeof(only[0]), .filter = only };

	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0 ? 0 : -1;
}

#ifndef ENCLAVE_NO_PROGRAMS
#define ENCLAVE_NO_PROGRAMS() enclave_no_programs()
#endif

/*
 * enclave_hold - let a step that is not ready start nothing
 *
 * slurmstepd's parent, root, after enclave_environment and enclave_privileges. A kernel that does
 * not do it is named in slurmd's log; the gate refuses the step's tasks all the same.
 */
void enclave_hold(spank_t spank)
{
	uint32_t step = 0;

	if (enclave_environment_ready())
		return;
	if (spank_get_item(spank, S_JOB_STEPID, &step) == ESPANK_SUCCESS &&
	    step == ENCLAVE_STEP_EXTERN)
		return;
	if (ENCLAVE_NO_PROGRAMS() < 0)
		slurm_error("enclave: hold the step: %s: its task epilog may run", strerror(errno));
}
