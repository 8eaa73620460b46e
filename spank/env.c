/*
 * env.c: the job's environment on an enclave node.
 *
 * GO's lines are set before PMIx starts (its direct connections must be off by then), and what
 * the user brought under our prefix is taken away, so that ENCLAVE_VERDICT in a job is ours.
 */
#include <pwd.h>
#include <string.h>

#include "enclave.h"

/* One slurmstepd serves one step: what its parent found, the forked tasks inherit. */
static bool marked;
static bool ready;

/* foreign - does the entry "NAME=value" stand under our prefix and not in go? */
static bool foreign(const char *entry, const struct enclave_go *go)
{
	const char *eq = strchr(entry, '=');

	if (!eq || strncmp(entry, ENCLAVE_ENV_PREFIX, strlen(ENCLAVE_ENV_PREFIX)) != 0)
		return false;
	for (unsigned int i = 0; i < go->pairs; i++) {
		size_t n = strlen(go->pair[i].name);

		if ((size_t)(eq - entry) == n && memcmp(entry, go->pair[i].name, n) == 0)
			return false;
	}
	return true;
}

/*
 * forget_one - unset the first foreign variable
 *
 * 1 when one was unset, 0 when there is none, -1 when it can't be unset. Unsetting moves the
 * array, so the search starts anew each time.
 */
static int forget_one(spank_t spank, const struct enclave_go *go)
{
	char name[256];
	char **env = NULL;

	if (spank_get_item(spank, S_JOB_ENV, &env) != ESPANK_SUCCESS)
		return -1;
	for (; env && *env; env++) {
		size_t n;

		if (!foreign(*env, go))
			continue;
		n = (size_t)(strchr(*env, '=') - *env);
		if (n >= sizeof(name))
			return -1;
		memcpy(name, *env, n);
		name[n] = '\0';
		return spank_unsetenv(spank, name) == ESPANK_SUCCESS ? 1 : -1;
	}
	return 0;
}

/* forget_foreign - unset all foreign variables; 0 or -1 */
static int forget_foreign(spank_t spank, const struct enclave_go *go)
{
	int rc = 1;

	/* Bounded: a launch message can't carry more variables than this under one prefix. */
	for (int i = 0; rc > 0 && i < 4096; i++)
		rc = forget_one(spank, go);
	return rc == 0 ? 0 : -1;
}

/*
 * bare_login - what a login without a profile sets
 *
 * For a job that asked for its user's login environment. Slurm's own way is to run the user's
 * profile as a child of slurmd: outside the gate and in no step, so that setuid programs give
 * what they give. What the job has already stays. A user that nobody knows gets a path only.
 */
static void bare_login(spank_t spank)
{
	char asked[sizeof(ENCLAVE_LOGIN) + 1], buf[4096];
	struct passwd user, *found = NULL;
	uid_t uid = (uid_t)-1;

	if (spank_getenv(spank, ENCLAVE_ENV_LOGIN, asked, sizeof(asked)) != ESPANK_SUCCESS ||
	    strcmp(asked, ENCLAVE_LOGIN) != 0)
		return;
	/* As Slurm leaves it, for what the job submits elsewhere. */
	(void)spank_setenv(spank, ENCLAVE_ENV_LOGIN, "1", 1);
	(void)spank_setenv(spank, "PATH", ENCLAVE_LOGIN_PATH, 0);
	if (spank_get_item(spank, S_JOB_UID, &uid) != ESPANK_SUCCESS ||
	    getpwuid_r(uid, &user, buf, sizeof(buf), &found) != 0 || !found)
		return;
	(void)spank_setenv(spank, "HOME", found->pw_dir, 0);
	(void)spank_setenv(spank, "SHELL", found->pw_shell, 0);
	(void)spank_setenv(spank, "USER", found->pw_name, 0);
	(void)spank_setenv(spank, "LOGNAME", found->pw_name, 0);
}

/*
 * enclave_environment - prepare the job's environment
 *
 * slurmstepd's parent, root, in every step (the extern step has no tasks and no harm comes of
 * it). Says nothing and fails nothing: the gate speaks, once per task. Without a valid GO only
 * the user's ENCLAVE_ names go.
 */
void enclave_environment(spank_t spank)
{
	struct enclave_go go;
	struct enclave_why why;
	uint32_t job = 0;

	ready = false;
	marked = enclave_marked();
	if (!marked)
		return;
	if (spank_get_item(spank, S_JOB_ID, &job) != ESPANK_SUCCESS ||
	    enclave_admission(job, &go, &why) < 0) {
		memset(&go, 0, sizeof(go));
		(void)forget_foreign(spank, &go);
		return;
	}
	if (forget_foreign(spank, &go) < 0)
		return;
	for (unsigned int i = 0; i < go.pairs; i++) {
		if (spank_setenv(spank, go.pair[i].name, go.pair[i].value, 1) != ESPANK_SUCCESS)
			return;
	}
	bare_login(spank);
	ready = true;
}

/* enclave_environment_ready - did the parent set everything that GO asks for? */
bool enclave_environment_ready(void)
{
	return ready;
}

/* enclave_environment_marked - did the parent see the marker? */
bool enclave_environment_marked(void)
{
	return marked;
}
