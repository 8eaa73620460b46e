/*
 * route.c: submit clients (srun, sbatch, salloc) only.
 *
 * Before Slurm reads the submission, ask libenclave-submit.so whether it is meant for an
 * enclave, and if so name the partition in the client's own environment. That is comfort for
 * the user; enclave.lua in slurmctld enforces. So a missing or old library never stops anyone.
 *
 * The library is Go. It is loaded only when the command line, an option variable or a tenant
 * table with a named account gives a reason to, and with all signals blocked: the Go runtime's
 * threads inherit that, and Slurm's handlers never run on one of them.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* program_invocation_short_name */
#endif
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "enclave.h"

/* The variables by which a client takes a partition and an account. */
static const struct client {
	const char *partition;
	const char *account;
} clients[] = {
	[ENCLAVE_SBATCH] = { "SBATCH_PARTITION", "SBATCH_ACCOUNT" },
	[ENCLAVE_SALLOC] = { "SALLOC_PARTITION", "SALLOC_ACCOUNT" },
	[ENCLAVE_SRUN] = { "SLURM_PARTITION", "SLURM_ACCOUNT" },
};

/* One client, one submission. */
static struct {
	enum enclave_program program;
	const char *library;
	const char *tenants;
	const char *partition;
	bool asked; /* the option was seen by the first look */
	bool set;   /* we put the partition into the environment */
} route = {
	.library = ENCLAVE_SUBMIT_LIBRARY,
	.tenants = ENCLAVE_TENANTS,
	.partition = ENCLAVE_PARTITION,
};

/* arguments - take plugstack.conf's key=value words; a wrong one is said, and passed over */
static void arguments(int ac, char **av)
{
	static const struct {
		const char *key;
		const char **value;
	} known[] = {
		{ "submit=", &route.library },
		{ "tenants=", &route.tenants },
		{ "partition=", &route.partition },
	};

	for (int i = 0; i < ac; i++) {
		bool found = false;

		for (size_t k = 0; k < sizeof(known) / sizeof(known[0]); k++) {
			size_t n = strlen(known[k].key);

			if (strncmp(av[i], known[k].key, n) == 0 && av[i][n]) {
				*known[k].value = av[i] + n;
				found = true;
			}
		}
		if (!found && strcmp(av[i], ENCLAVE_SETUID_ALLOW) != 0)
			slurm_error("enclave: plugstack.conf: unknown argument %s, want submit=, "
				    "tenants=, partition= or " ENCLAVE_SETUID_ALLOW,
				    av[i]);
	}
}

/*
 * command_line - the client's own arguments
 * @buf, @size: filled with whole NUL-terminated words; a longer line is cut at a word
 *
 * The count of bytes; 0 when it can't be read.
 */
static size_t command_line(char *buf, size_t size)
{
	size_t have = 0;
	int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return 0;
	while (have < size) {
		ssize_t n = read(fd, buf + have, size - have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		have += (size_t)n;
	}
	(void)close(fd);
	while (have > 0 && buf[have - 1] != '\0')
		have--;
	return have;
}

/* mentions - does a word of the line begin with prefix? */
static bool mentions(const char *line, size_t len, const char *prefix)
{
	const char *end = line + len;

	for (const char *word = line; word < end; word += strlen(word) + 1) {
		if (strncmp(word, prefix, strlen(prefix)) == 0)
			return true;
	}
	return false;
}

/* ask - load the library and put the question; enum enclave_route */
static int ask(const struct enclave_submission *s, char *text, size_t text_len)
{
	int rc = ENCLAVE_ROUTE_NONE;
	sigset_t all, before;
	enclave_submit_route_f *fn;
	void *library;

	(void)sigfillset(&all);
	if (pthread_sigmask(SIG_SETMASK, &all, &before) != 0)
		return rc;
	library = dlopen(route.library, RTLD_NOW | RTLD_LOCAL);
	if (!library) {
		slurm_debug("enclave: load submit library: %s", dlerror());
		goto out;
	}
	*(void **)&fn = dlsym(library, ENCLAVE_SUBMIT_SYMBOL);
	if (fn)
		rc = fn(s, text, text_len);
	else
		slurm_debug("enclave: %s: no %s in it", route.library, ENCLAVE_SUBMIT_SYMBOL);
out:
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc;
}

/* act - do what the library decided; 0, or -1 to end the submission */
static int act(int decision, const char *text)
{
	switch (decision) {
	case ENCLAVE_ROUTE_SET:
		if (setenv(clients[route.program].partition, text, 0) < 0) {
			slurm_error("enclave: set partition %s: out of memory", text);
			return 0;
		}
		route.set = true;
		return 0;
	case ENCLAVE_ROUTE_REFUSED:
		slurm_error("enclave: %s", text);
		return -1;
	default:
		return 0;
	}
}

/*
 * consider - look at the submission as far as it is known
 * @option: --enclave's value when Slurm has told it, else NULL
 */
static int consider(const char *option)
{
	char line[32768], text[ENCLAVE_TEXT_MAX] = "";
	const struct client *client = &clients[route.program];
	size_t len = command_line(line, sizeof(line));
	struct enclave_submission s = {
		.program = (int)route.program,
		.uid = getuid(),
		.cmdline = line,
		.cmdline_len = len,
		.option = option ? option : getenv("SLURM_SPANK_" ENCLAVE_OPTION_ENV),
		.partition_env = getenv(client->partition),
		.account_env = getenv(client->account),
		.job_env = getenv("SLURM_JOB_ID"),
		.tenants = route.tenants,
		.partition = route.partition,
	};
	/* "--en" is the shortest prefix that getopt_long takes for --enclave. */
	bool asked = s.option || mentions(line, len, "--en");
	bool account = s.account_env || mentions(line, len, "-A") || mentions(line, len, "--acco");

	route.asked = asked;
	if (!asked && !(account && access(route.tenants, R_OK) == 0))
		return 0;
	return act(ask(&s, text, sizeof(text)), text);
}

/*
 * enclave_route_init - the first look, before the client parses options and environment
 * @ac, @av: plugstack.conf's arguments
 * @allocator: sbatch or salloc; else srun
 *
 * The user's client. 0, or -1 to end the submission after the reason was printed.
 */
int enclave_route_init(int ac, char **av, bool allocator)
{
	route.program = ENCLAVE_SRUN;
	if (allocator) {
		bool salloc = strcmp(program_invocation_short_name, "salloc") == 0;

		route.program = salloc ? ENCLAVE_SALLOC : ENCLAVE_SBATCH;
	}
	arguments(ac, av);
	return consider(NULL);
}

/*
 * enclave_route_option - the second look, when Slurm hands over the option
 * @tenant: its value, "" for none
 *
 * News only when it stands on an #SBATCH line, which sbatch reads before its environment. 0 or
 * -1 as above.
 */
int enclave_route_option(const char *tenant)
{
	if (route.asked || !route.program)
		return 0;
	return consider(tenant);
}

/*
 * enclave_route_forget - take the partition out of the environment again
 *
 * The client has read it; left there, it would travel into the job and route the submissions
 * that the job makes.
 */
void enclave_route_forget(void)
{
	if (route.set)
		(void)unsetenv(clients[route.program].partition);
	route.set = false;
}
