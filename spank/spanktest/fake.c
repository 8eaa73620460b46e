/*
 * fake.c: what Slurm exports to plugins, over a state that the test sets and reads.
 *
 * It keeps Slurm's contracts that matter: spank_get_item writes nothing when it fails, unsetenv
 * moves the array, messages go through printf formats.
 */
#include <errno.h>
#include <slurm/spank.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fake.h"

#define FAKE_ENV_MAX 512

static struct {
	int context;
	char path[FAKE_PATHS][4096];
	uid_t directories, files;
	gid_t group;
	uint32_t job;
	int job_known, setenv_fails, env_fails, stuck, dropped, keyring, left, programs, held;
	uint32_t step;
	char *env[FAKE_ENV_MAX + 1];
	int count;
	char errors[16384];
	struct spank_option option;
} fake;

const char *fake_path(enum fake_path which)
{
	return fake.path[which];
}

uid_t fake_owner(const struct stat *st)
{
	return S_ISDIR(st->st_mode) ? fake.directories : fake.files;
}

gid_t fake_group(void)
{
	return fake.group;
}

int fake_no_new_privileges(void)
{
	fake.dropped = !fake.stuck;
	return fake.stuck ? -1 : 0;
}

long fake_new_session_keyring(void)
{
	errno = fake.keyring;
	fake.left = !fake.keyring;
	return fake.keyring ? -1 : 4711;
}

int fake_no_programs(void)
{
	errno = EINVAL;
	fake.held = !fake.programs;
	return fake.programs ? -1 : 0;
}

int fake_held(void)
{
	return fake.held;
}

int fake_left(void)
{
	return fake.left;
}

int fake_dropped(void)
{
	return fake.dropped;
}

void fake_set_step(uint32_t step)
{
	fake.step = step;
}

void fake_set_stuck(int privileges, int keyring, int programs)
{
	fake.stuck = privileges;
	fake.keyring = keyring;
	fake.programs = programs;
}

void fake_reset(int context)
{
	while (fake.count > 0) {
		free(fake.env[--fake.count]);
		fake.env[fake.count] = NULL;
	}
	memset(&fake, 0, sizeof(fake));
	fake.context = context;
	fake.job_known = 1;
}

void fake_set_path(int which, const char *path)
{
	(void)snprintf(fake.path[which], sizeof(fake.path[which]), "%s", path);
}

void fake_set_owner(uid_t directories, uid_t files, gid_t group)
{
	fake.directories = directories;
	fake.files = files;
	fake.group = group;
}

void fake_set_job(uint32_t job, int known)
{
	fake.job = job;
	fake.job_known = known;
}

void fake_set_failing(int setenv_fails, int env_fails)
{
	fake.setenv_fails = setenv_fails;
	fake.env_fails = env_fails;
}

int fake_env_add(const char *entry)
{
	if (fake.count >= FAKE_ENV_MAX)
		return -1;
	fake.env[fake.count] = strdup(entry);
	return fake.env[fake.count++] ? 0 : -1;
}

int fake_env_count(void)
{
	return fake.count;
}

const char *fake_env_at(int i)
{
	return fake.env[i];
}

const char *fake_errors(void)
{
	return fake.errors;
}

const char *fake_option_usage(void)
{
	return fake.option.usage ? fake.option.usage : "";
}

int fake_option_call(const char *arg, int remote)
{
	return fake.option.cb(fake.option.val, arg, remote);
}

int fake_init(const char *arg0, const char *arg1)
{
	/* As under Slurm, the words outlive the call, since the plugin keeps pointers to them. */
	static char words[2][4096];
	char *av[] = { words[0], words[1] };

	(void)snprintf(words[0], sizeof(words[0]), "%s", arg0);
	(void)snprintf(words[1], sizeof(words[1]), "%s", arg1);
	return slurm_spank_init((spank_t)&fake, (arg0[0] ? 1 : 0) + (arg1[0] ? 1 : 0), av);
}

int fake_post_opt(const char *arg)
{
	char word[4096];
	char *av[] = { word };

	(void)snprintf(word, sizeof(word), "%s", arg);
	return slurm_spank_init_post_opt((spank_t)&fake, arg[0] ? 1 : 0, av);
}

int fake_gate(void)
{
	return slurm_spank_task_init_privileged((spank_t)&fake, 0, NULL);
}

/* From here on: Slurm. */

spank_context_t spank_context(void)
{
	return (spank_context_t)fake.context;
}

spank_err_t spank_option_register(spank_t spank, struct spank_option *opt)
{
	(void)spank;
	fake.option = *opt;
	return ESPANK_SUCCESS;
}

spank_err_t spank_get_item(spank_t spank, spank_item_t item, ...)
{
	spank_err_t rc = ESPANK_SUCCESS;
	va_list args;

	(void)spank;
	va_start(args, item);
	switch (item) {
	case S_JOB_ID:
		if (fake.job_known)
			*va_arg(args, uint32_t *) = fake.job;
		else
			rc = ESPANK_NOT_AVAIL;
		break;
	case S_JOB_STEPID:
		*va_arg(args, uint32_t *) = fake.step;
		break;
	case S_JOB_UID:
		*va_arg(args, uid_t *) = geteuid();
		break;
	case S_JOB_ENV:
		if (fake.env_fails)
			rc = ESPANK_NOT_AVAIL;
		else
			*va_arg(args, char ***) = fake.env;
		break;
	default:
		rc = ESPANK_BAD_ARG;
	}
	va_end(args);
	return rc;
}

static int find(const char *name)
{
	size_t n = strlen(name);

	for (int i = 0; i < fake.count; i++) {
		if (strncmp(fake.env[i], name, n) == 0 && fake.env[i][n] == '=')
			return i;
	}
	return -1;
}

spank_err_t spank_getenv(spank_t spank, const char *name, char *buf, int len)
{
	int i = find(name);

	(void)spank;
	if (i < 0)
		return ESPANK_ENV_NOEXIST;
	if (snprintf(buf, (size_t)len, "%s", fake.env[i] + strlen(name) + 1) >= len)
		return ESPANK_NOSPACE;
	return ESPANK_SUCCESS;
}

spank_err_t spank_setenv(spank_t spank, const char *name, const char *value, int overwrite)
{
	char entry[8192];
	int i = find(name);

	(void)spank;
	if (fake.setenv_fails)
		return ESPANK_ERROR;
	if (i >= 0 && !overwrite)
		return ESPANK_ENV_EXISTS;
	(void)snprintf(entry, sizeof(entry), "%s=%s", name, value);
	if (i < 0)
		return fake_env_add(entry) < 0 ? ESPANK_ERROR : ESPANK_SUCCESS;
	free(fake.env[i]);
	fake.env[i] = strdup(entry);
	return fake.env[i] ? ESPANK_SUCCESS : ESPANK_ERROR;
}

spank_err_t spank_unsetenv(spank_t spank, const char *name)
{
	int i = find(name);

	(void)spank;
	if (i < 0)
		return ESPANK_SUCCESS;
	free(fake.env[i]);
	memmove(&fake.env[i], &fake.env[i + 1], (size_t)(fake.count - i) * sizeof(fake.env[0]));
	fake.count--;
	return ESPANK_SUCCESS;
}

static void say(const char *format, va_list args)
{
	size_t n = strlen(fake.errors);

	(void)vsnprintf(fake.errors + n, sizeof(fake.errors) - n, format, args);
	n = strlen(fake.errors);
	(void)snprintf(fake.errors + n, sizeof(fake.errors) - n, "\n");
}

void slurm_error(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(format, args);
	va_end(args);
}

void slurm_debug(const char *format, ...)
{
	(void)format;
}
