/*
 * fake.h: a slurmstepd that the test holds in its hand, and the paths it gives the plugin.
 *
 * It is included before every C file of this package (cgo's CFLAGS), and only here.
 */
#ifndef FAKE_H
#define FAKE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

/* Where the production copy has constants. st is the stat buffer at the place of use. */
#define ENCLAVE_ROOT fake_path(FAKE_ROOT)
#define ENCLAVE_MARKER fake_path(FAKE_MARKER)
#define ENCLAVE_BOOT_ID fake_path(FAKE_BOOT_ID)
#define ENCLAVE_OWNER fake_owner(&st)
#define ENCLAVE_GROUP fake_group()

#define ENCLAVE_NO_NEW_PRIVILEGES() fake_no_new_privileges()
#define ENCLAVE_NEW_SESSION_KEYRING() fake_new_session_keyring()
#define ENCLAVE_NO_PROGRAMS() fake_no_programs()

enum fake_path { FAKE_ROOT, FAKE_MARKER, FAKE_BOOT_ID, FAKE_PATHS };

const char *fake_path(enum fake_path which);
uid_t fake_owner(const struct stat *st);
gid_t fake_group(void);
int fake_no_new_privileges(void);
long fake_new_session_keyring(void);
int fake_no_programs(void);

/* The test's side. */
void fake_reset(int context);
void fake_set_path(int which, const char *path);
void fake_set_owner(uid_t directories, uid_t files, gid_t group);
void fake_set_job(uint32_t job, int known);
void fake_set_stuck(int privileges, int keyring, int programs);
void fake_set_step(uint32_t step);
int fake_dropped(void);
int fake_left(void);
int fake_held(void);
/* A child that has run enclave_no_programs tries to start a program in some ways; which one could, or "". */
const char *fake_try_programs(int held);
void fake_set_failing(int setenv_fails, int env_fails);
int fake_env_add(const char *entry);
int fake_env_count(void);
const char *fake_env_at(int i);
const char *fake_errors(void);
const char *fake_option_usage(void);
int fake_option_call(const char *arg, int remote);

/* The hooks, called as Slurm calls them. */
int fake_init(const char *arg0, const char *arg1);
int fake_post_opt(const char *arg);
int fake_gate(void);

#endif
