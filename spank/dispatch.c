/*
 * dispatch.c: the boundary with Slurm. Every slurm_spank_ symbol of the plugin is here.
 *
 * A veto is -1, everything else 0: up to Slurm 24.11 a positive return of a required plugin
 * lets the job run. Only the gate vetoes on a node, because -1 from any other hook there
 * drains the node for a job's fault.
 *
 * job_prolog, job_epilog and slurmd_exit are not exported on purpose: the first two would take
 * the option out of the Prolog's environment, the last would keep the plugin in slurmd.
 */
#include "enclave.h"

/* The release, in an ELF section of its own: the prolog's ground check compares it. */
static const char release[] __attribute__((used, section(ENCLAVE_RELEASE_SECTION))) =
    ENCLAVE_VERSION;

#pragma GCC visibility push(default)

SPANK_PLUGIN(enclave, 1)

/*
 * slurm_spank_init - register the option and, in a submit client, route the submission
 *
 * srun, sbatch, salloc (the user): -1 ends the submission, the reason is printed.
 * slurmstepd (root), slurmd (root): always 0.
 */
int slurm_spank_init(spank_t spank, int ac, char **av)
{
	switch (spank_context()) {
	case S_CTX_LOCAL:
		(void)enclave_options_register(spank);
		return enclave_route_init(ac, av, false);
	case S_CTX_ALLOCATOR:
		(void)enclave_options_register(spank);
		return enclave_route_init(ac, av, true);
	case S_CTX_REMOTE:
		(void)enclave_options_register(spank);
		return 0;
	default:
		return 0;
	}
}

/*
 * slurm_spank_init_post_opt - set the job's environment on a node, tidy it in a client
 *
 * slurmstepd's parent (root), before PMIx starts. Always 0: what goes wrong here is
 * remembered, and the gate refuses for it.
 */
int slurm_spank_init_post_opt(spank_t spank, int ac, char **av)
{
	switch (spank_context()) {
	case S_CTX_LOCAL:
	case S_CTX_ALLOCATOR:
		enclave_route_forget();
		return 0;
	case S_CTX_REMOTE:
		enclave_environment(spank);
		if (enclave_environment_marked()) {
			enclave_privileges(ac, av);
			enclave_hold(spank);
		}
		return 0;
	default:
		return 0;
	}
}

/*
 * slurm_spank_task_init_privileged - the gate
 *
 * slurmstepd's child, single thread, root, before each task. -1 fails the task and leaves the
 * node up on every version of Slurm.
 */
int slurm_spank_task_init_privileged(spank_t spank, int ac, char **av)
{
	(void)ac;
	(void)av;
	return enclave_gate(spank) < 0 ? -1 : 0;
}

#pragma GCC visibility pop
