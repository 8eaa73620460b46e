/*
 * programs.c: whether a process can start a program, asked of the kernel itself.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "enclave.h"
#include "fake.h"

/* start - one way to start a program; returns only when it could not */
static int start(int way)
{
	char *argv[] = { (char *)"/bin/true", NULL }, *none[] = { NULL };

	switch (way) {
	case 0:
		return execve(argv[0], argv, none);
	case 1:
		return (int)syscall(SYS_execveat, AT_FDCWD, argv[0], argv, none, 0);
	case 2: /* x32's execve: a kernel may have it */
		return (int)syscall(0x40000000L + 520, argv[0], argv, none);
	default: { /* a process forked by a forked one */
		pid_t pid = fork();
		int status = 0;

		if (pid == 0) {
			(void)execve(argv[0], argv, none);
			_exit(1);
		}
		if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
			return -1;
		_exit(0);
	}
	}
}

const char *fake_try_programs(int held)
{
	static const char *const ways[] = { "execve", "execveat", "x32", "grandchild" };
	static char could[128];
	size_t n = 0;

	could[0] = '\0';
	for (int way = 0; way < 4; way++) {
		pid_t pid = fork();
		int status = 0;

		if (pid == 0) {
			if (held && (prctl(PR_SET_NO_NEW_PRIVS, 1L, 0L, 0L, 0L) != 0 ||
				     enclave_no_programs() != 0))
				_exit(2);
			(void)start(way);
			_exit(1);
		}
		if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) ||
		    WEXITSTATUS(status) == 2)
			return "nothing was tried";
		if (WEXITSTATUS(status) == 0)
			n += (size_t)snprintf(could + n, sizeof(could) - n, "%s ", ways[way]);
	}
	return could;
}
