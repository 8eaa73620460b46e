/*
 * gate.c: may this job's tasks start on this node?
 *
 * On a node without the marker: yes, at once. On an enclave node only with a GO file of this
 * job, of this boot, not expired, and without a DENY file. Whatever can't be decided is no.
 * Nothing here listens to the job: not its partition, not its environment, not its options.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "enclave.h"

/* refuse - fill why; always -1. The text is ours, or was checked to be printable ASCII. */
static int refuse(struct enclave_why *why, const char *code, const char *text)
{
	(void)snprintf(why->code, sizeof(why->code), "%s", code);
	(void)snprintf(why->text, sizeof(why->text), "%s", text);
	return -1;
}

/*
 * enclave_marked - is this an enclave node?
 *
 * slurmstepd, root. One system call. Only "there is no such name" says no; a marker that can't
 * be looked at, or a dangling link at its place, says yes.
 */
bool enclave_marked(void)
{
	struct stat st;

	return lstat(ENCLAVE_MARKER, &st) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

/* this_boot - the kernel's boot id into out; 0 or -1 */
static int this_boot(char out[ENCLAVE_BOOT_LEN + 2])
{
	ssize_t n;
	int fd = open(ENCLAVE_BOOT_ID, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	do {
		n = read(fd, out, ENCLAVE_BOOT_LEN + 2);
	} while (n < 0 && errno == EINTR);
	(void)close(fd);
	if (n != ENCLAVE_BOOT_LEN + 1 || out[ENCLAVE_BOOT_LEN] != '\n')
		return -1;
	out[ENCLAVE_BOOT_LEN] = '\0';
	return 0;
}

/* current - does go speak of this job, of this boot, of now? 0 or -1 with why */
static int current(const struct enclave_go *go, uint32_t job, struct enclave_why *why)
{
	char boot[ENCLAVE_BOOT_LEN + 2];
	struct timespec now;

	if (go->job != job)
		return refuse(why, "E112", "the admission on this node is another job's");
	if (this_boot(boot) < 0)
		return refuse(why, "E112", "read the kernel's boot id: not readable");
	if (strcmp(go->boot, boot) != 0)
		return refuse(why, "E112", "the admission on this node is of an earlier boot");
	if (clock_gettime(CLOCK_BOOTTIME, &now) < 0 || now.tv_sec < 0)
		return refuse(why, "E113", "read the boot clock: not readable");
	if ((uint64_t)now.tv_sec >= go->expires)
		return refuse(why, "E113", "the admission of this job on this node has expired");
	return 0;
}

/* denied - 0 when there is no DENY file of the job, else -1 with its text, or ours */
static int denied(int directory, uint32_t job, struct enclave_why *why)
{
	char name[32], buf[ENCLAVE_GO_MAX + 1];
	struct enclave_deny deny;
	ssize_t n;

	if (snprintf(name, sizeof(name), "%u.deny", job) >= (int)sizeof(name))
		return refuse(why, "E111", "name the deny file: too long");
	n = enclave_gate_read(directory, name, buf, sizeof(buf));
	if (n < 0 && errno == ENOENT)
		return 0;
	if (n < 0 || enclave_deny_parse(buf, (size_t)n, &deny) < 0 || deny.job != job)
		return refuse(why, "E111", "this node denies the job without a readable reason");
	return refuse(why, deny.code, deny.reason);
}

/*
 * enclave_admission - find and judge the gate files of a job
 * @go: filled when the job is admitted
 * @why: filled when it is not
 *
 * slurmstepd, root. 0 or -1. DENY is looked at first, and GO last, so that a node that changes
 * its mind meanwhile is heard.
 */
int enclave_admission(uint32_t job, struct enclave_go *go, struct enclave_why *why)
{
	char name[32], buf[ENCLAVE_GO_MAX + 1];
	ssize_t n;
	int rc = -1, directory = enclave_gate_directory();

	if (directory < 0 && errno == ENOENT)
		return refuse(why, "E110", "this node has not admitted the job");
	if (directory < 0)
		return refuse(why, "E111", "the gate directory is not root's alone");
	if (denied(directory, job, why) < 0)
		goto out;
	if (snprintf(name, sizeof(name), "%u.go", job) >= (int)sizeof(name)) {
		(void)refuse(why, "E111", "name the admission: too long");
		goto out;
	}
	n = enclave_gate_read(directory, name, buf, sizeof(buf));
	if (n < 0 && errno == ENOENT)
		(void)refuse(why, "E110", "this node has not admitted the job");
	else if (n < 0)
		(void)refuse(why, "E111", "the admission is not a plain file of root's, mode 0400");
	else if (enclave_go_parse(buf, (size_t)n, go) < 0)
		(void)refuse(why, "E111", "the admission is not well formed");
	else
		rc = current(go, job, why);
out:
	(void)close(directory);
	return rc;
}

/*
 * viewed - is this task where the job's view of data is?
 *
 * 0 or -1 with why. Without a VIEW file the view is the node's own; the prolog writes one before GO
 * where it is to be in a mount namespace of the job's. A task that Slurm started elsewhere would
 * see no data, or a site's own.
 */
static int viewed(uint32_t job, struct enclave_why *why)
{
	char name[32], buf[ENCLAVE_GO_MAX + 1], boot[ENCLAVE_BOOT_LEN + 2];
	struct enclave_view view;
	struct stat st;
	ssize_t n = -1;
	int err, directory = enclave_gate_directory();

	if (directory < 0)
		return refuse(why, "E111", "the gate directory is not root's alone");
	errno = EINVAL;
	if (snprintf(name, sizeof(name), "%u.view", job) < (int)sizeof(name))
		n = enclave_gate_read(directory, name, buf, sizeof(buf));
	err = errno;
	(void)close(directory);
	if (n < 0 && err == ENOENT)
		return 0;
	if (n < 0 || enclave_view_parse(buf, (size_t)n, &view) < 0 || view.job != job ||
	    this_boot(boot) < 0 || strcmp(view.boot, boot) != 0)
		return refuse(why, "E325", "where the job's view of data is cannot be read");
	if (view.space == 0)
		return refuse(why, "E325", "the job's view of data was not made on this node");
	if (stat(ENCLAVE_OWN_NAMESPACE, &st) < 0 || (uint64_t)st.st_ino != view.space)
		return refuse(why, "E325",
			      "this task was not started where the job's view of data is");
	return 0;
}

/*
 * enclave_gate - decide on one task
 *
 * slurmstepd's child, root. 0 to let it start; -1 after telling the user why not. The marker
 * counts when it was there in the parent too, since the child may stand in a mount namespace
 * of the job's.
 */
int enclave_gate(spank_t spank)
{
	struct enclave_go go;
	struct enclave_why why;
	uint32_t job = 0;

	if (!enclave_environment_marked() && !enclave_marked())
		return 0;
	if (spank_get_item(spank, S_JOB_ID, &job) != ESPANK_SUCCESS || job == 0)
		(void)refuse(&why, "E115", "Slurm does not say which job this is");
	else if (enclave_admission(job, &go, &why) == 0 && viewed(job, &why) == 0) {
		if (enclave_environment_ready() && !enclave_privileges_kept())
			return 0;
		(void)refuse(&why, "E115", "the job's environment could not be prepared");
	}
	slurm_error("enclave: gate: %s: %s", why.code, why.text);
	return -1;
}
