/*
 * privilege.c: no setuid program in a job.
 *
 * On an enclave node the processes of a step get nothing from setuid and setgid programs and file
 * capabilities: sockets of another user id pass by the fence, and crontab, at and fusermount
 * leave behind what outlives the job. It is set in slurmstepd itself, not in the task, because
 * the user's task epilog is started by slurmstepd, too. slurmstepd is root and starts nothing
 * that would need more.
 */
#include <string.h>
#include <sys/prctl.h>

#include "enclave.h"

#ifndef ENCLAVE_NO_NEW_PRIVILEGES
#define ENCLAVE_NO_NEW_PRIVILEGES() prctl(PR_SET_NO_NEW_PRIVS, 1L, 0L, 0L, 0L)
#endif

static bool failed;

/*
 * enclave_privileges - give up what setuid programs give, for this step
 * @ac, @av: plugstack.conf's words; setuid=allow leaves everything as it is
 *
 * slurmstepd's parent, root. Says nothing and fails nothing: the gate refuses when it failed.
 */
void enclave_privileges(int ac, char **av)
{
	failed = false;
	for (int i = 0; i < ac; i++) {
		if (strcmp(av[i], ENCLAVE_SETUID_ALLOW) == 0)
			return;
	}
	failed = ENCLAVE_NO_NEW_PRIVILEGES() != 0;
}

/* enclave_privileges_kept - could they not be given up? */
bool enclave_privileges_kept(void)
{
	return failed;
}
