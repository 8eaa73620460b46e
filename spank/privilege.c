/*
 * privilege.c: what a step does not take over from slurmd.
 *
 * Setuid programs give nothing.
 *
 * On an enclave node the processes of a step get nothing from setuid and setgid programs and file
 * capabilities: sockets of another user id pass by the fence, and crontab, at and fusermount
 * leave behind what outlives the job. It is set in slurmstepd itself, not in the task, because
 * the user's task epilog is started by slurmstepd, too. slurmstepd is root and starts nothing
 * that would need more.
 *
 * And it gets a session keyring of its own. systemd gives slurmd one, which every process of every
 * job inherits, and with it the right to read it, write it and leave in it for the next job.
 */
#include <errno.h>
#include <linux/keyctl.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "enclave.h"

#ifndef ENCLAVE_NO_NEW_PRIVILEGES
#define ENCLAVE_NO_NEW_PRIVILEGES() prctl(PR_SET_NO_NEW_PRIVS, 1L, 0L, 0L, 0L)
#endif

#ifndef ENCLAVE_NEW_SESSION_KEYRING
#define ENCLAVE_NEW_SESSION_KEYRING() syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL)
#endif

static bool failed;

/*
 * enclave_privileges - leave slurmd's keyring, and give up what setuid programs give, for this step
 * @ac, @av: plugstack.conf's words; setuid=allow leaves setuid programs as they are
 *
 * slurmstepd's parent, root. Says nothing and fails nothing: the gate refuses when it failed.
 */
void enclave_privileges(int ac, char **av)
{
	/* A kernel without keyrings has none to inherit. */
	failed = ENCLAVE_NEW_SESSION_KEYRING() < 0 && errno != ENOSYS;
	for (int i = 0; i < ac; i++) {
		if (strcmp(av[i], ENCLAVE_SETUID_ALLOW) == 0)
			return;
	}
	failed = ENCLAVE_NO_NEW_PRIVILEGES() != 0 || failed;
}

/* enclave_privileges_kept - could they not be given up, or the keyring not be left? */
bool enclave_privileges_kept(void)
{
	return failed;
}
