/*
 * enclave.h: what the plugin's own files say to each other.
 *
 * dispatch.c  the boundary: one function per SPANK hook, a switch on the context
 * options.c   --enclave[=TENANT]
 * route.c     submit clients only: the submit library, loaded when it is needed
 * gate.c      slurmstepd only: may this job's tasks start on this node?
 * gatedir.c   the gate files, opened beneath their directory; no Slurm in it
 * gofile.c    the gate files, parsed; no Slurm and no file in it
 * env.c       slurmstepd only: the job's environment
 * privilege.c slurmstepd only: no setuid programs
 * hold.c      slurmstepd only: no programs at all in a step that is refused
 */
#ifndef ENCLAVE_H
#define ENCLAVE_H

#include <slurm/spank.h>
#include <stdbool.h>
#include <sys/types.h>

#include "abi.h"

/* Paths and the owner are compiled in. spanktest compiles its own copy with others. */
#ifndef ENCLAVE_ROOT
#define ENCLAVE_ROOT "/"
#endif
#ifndef ENCLAVE_GATE_STEPS
#define ENCLAVE_GATE_STEPS "run", "slurm-enclave", "gate"
#endif
#ifndef ENCLAVE_MARKER
#define ENCLAVE_MARKER "/etc/slurm-enclave/enclave-node"
#endif
#ifndef ENCLAVE_BOOT_ID
#define ENCLAVE_BOOT_ID "/proc/sys/kernel/random/boot_id"
#endif
#ifndef ENCLAVE_OWN_NAMESPACE
#define ENCLAVE_OWN_NAMESPACE "/proc/self/ns/mnt"
#endif
#ifndef ENCLAVE_OWNER
#define ENCLAVE_OWNER 0
#endif
#ifndef ENCLAVE_GROUP
#define ENCLAVE_GROUP 0
#endif

#define ENCLAVE_BOOT_LEN 36

struct enclave_pair {
	char name[ENCLAVE_GO_NAME_MAX + 1];
	char value[ENCLAVE_GO_VALUE_MAX + 1];
};

struct enclave_go {
	uint32_t job;
	uint32_t restart;
	uint64_t expires; /* CLOCK_BOOTTIME, whole seconds */
	char boot[ENCLAVE_BOOT_LEN + 1];
	unsigned int pairs;
	struct enclave_pair pair[ENCLAVE_GO_PAIRS];
};

struct enclave_deny {
	uint32_t job;
	char code[5];
	char reason[ENCLAVE_TEXT_MAX]; /* cut when longer */
};

/* Where the job's view is; 0 when it is not made yet. */
struct enclave_view {
	uint32_t job;
	uint64_t space; /* inode of the mount namespace, as in mnt:[4026532000] */
	char boot[ENCLAVE_BOOT_LEN + 1];
};

/* Why the gate refuses: a code of docs and one line for the user. */
struct enclave_why {
	char code[5];
	char text[ENCLAVE_TEXT_MAX + 64];
};

/* gofile.c */
int enclave_go_parse(const char *text, size_t len, struct enclave_go *go);
int enclave_deny_parse(const char *text, size_t len, struct enclave_deny *deny);
int enclave_view_parse(const char *text, size_t len, struct enclave_view *view);

/* gatedir.c */
int enclave_gate_directory(void);
ssize_t enclave_gate_read(int directory, const char *name, char *buf, size_t size);

/* gate.c */
bool enclave_marked(void);
int enclave_admission(uint32_t job, struct enclave_go *go, struct enclave_why *why);
int enclave_gate(spank_t spank);

/* env.c */
void enclave_environment(spank_t spank);
bool enclave_environment_ready(void);
bool enclave_environment_marked(void);

/* privilege.c */
#define ENCLAVE_SETUID_ALLOW "setuid=allow"
void enclave_privileges(int ac, char **av);
bool enclave_privileges_kept(void);

/* hold.c */
int enclave_no_programs(void);
void enclave_hold(spank_t spank);

/* options.c */
bool enclave_tenant_valid(const char *name);
int enclave_options_register(spank_t spank);

/* route.c */
int enclave_route_init(int ac, char **av, bool allocator);
int enclave_route_option(const char *tenant);
void enclave_route_forget(void);

#endif
