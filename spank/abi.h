/*
 * abi.h: every name and number that the C plugin shares with Go and with the other programs.
 *
 * Go reads it through cgo (spank/submit, spank/spanktest), so that nothing is written twice.
 */
#ifndef ENCLAVE_ABI_H
#define ENCLAVE_ABI_H

#include <stddef.h>
#include <stdint.h>

/* The option, and the variable under which Slurm carries it to slurmctld and to the nodes. */
#define ENCLAVE_OPTION "enclave"
#define ENCLAVE_OPTION_ENV "_SLURM_SPANK_OPTION_enclave_enclave"

/* A tenant's name: [a-z0-9][a-z0-9_-]{0,62}. */
#define ENCLAVE_TENANT_MAX 63

/* The release stands in the plugin, NUL-terminated, in this ELF section. */
#define ENCLAVE_RELEASE_SECTION ".enclave.release"
#ifndef ENCLAVE_VERSION
#define ENCLAVE_VERSION "0.0.0-unreleased"
#endif

/* The gate files: LF lines, printable ASCII, at most ENCLAVE_GO_MAX bytes. */
#define ENCLAVE_GO_HEADER "slurm-enclave-go 1"
#define ENCLAVE_DENY_HEADER "slurm-enclave-deny 1"
#define ENCLAVE_VIEW_HEADER "slurm-enclave-view 1"
#define ENCLAVE_GO_MAX 4096
#define ENCLAVE_GO_PAIRS 16
#define ENCLAVE_GO_VALUE_MAX 200
#define ENCLAVE_GO_NAME_MAX 63
#define ENCLAVE_ENV_PREFIX "ENCLAVE_"
#define ENCLAVE_ENV_PMIX "SLURM_PMIX_DIRECT_CONN"

/* What enclave.lua puts for the "1" that would have slurmd run the user's login shell. */
#define ENCLAVE_ENV_LOGIN "SLURM_GET_USER_ENV"
#define ENCLAVE_LOGIN "enclave"
#define ENCLAVE_LOGIN_PATH "/usr/local/bin:/usr/bin:/bin"

/* The submit library: where it is, what it exports, and what the plugin hands it. */
#define ENCLAVE_SUBMIT_LIBRARY "/usr/libexec/slurm-enclave/libenclave-submit.so"
#define ENCLAVE_SUBMIT_SYMBOL "enclave_submit_route"
#define ENCLAVE_TENANTS "/etc/slurm-enclave/tenants.yaml"
#define ENCLAVE_PARTITION "cpu-sev"
#define ENCLAVE_TEXT_MAX 512

enum enclave_program { ENCLAVE_SBATCH = 1, ENCLAVE_SALLOC = 2, ENCLAVE_SRUN = 3 };

enum enclave_route {
	ENCLAVE_ROUTE_NONE = 0,    /* leave the submission alone */
	ENCLAVE_ROUTE_SET = 1,     /* text is the partition to ask for */
	ENCLAVE_ROUTE_REFUSED = 2, /* text is the reason, one line for the user */
};

/* What the plugin knows of a submission. A string is NULL when its variable is not set. */
struct enclave_submission {
	int program;         /* enum enclave_program */
	uint32_t uid;        /* who submits */
	const char *cmdline; /* /proc/self/cmdline: NUL-terminated arguments */
	size_t cmdline_len;  /* bytes in it, the last NUL included */
	const char *option;  /* --enclave's value as seen elsewhere; "" when it had none */
	const char *partition_env;
	const char *account_env;
	const char *job_env;   /* SLURM_JOB_ID: an srun inside a job makes a step, not a job */
	const char *tenants;   /* path of the tenant table, absent: no check */
	const char *partition; /* the enclave partition when the table names none */
};

/* The one symbol of libenclave-submit.so; text holds at least ENCLAVE_TEXT_MAX bytes. */
typedef int enclave_submit_route_f(const struct enclave_submission *submission, char *text,
				   size_t text_len);

#endif
