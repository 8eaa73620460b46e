/*
 * gatedir.c: the gate files, opened beneath their directory. No Slurm in it.
 *
 * The files are root's, but they are read on a node where a user may have tried to put
 * something else at their place; so nothing is followed and nothing is assumed.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "enclave.h"

/* owned_directory - a directory of the owner's that nobody else can write; 0 or -1 */
static int owned_directory(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -1;
	if (S_ISDIR(st.st_mode) && st.st_uid == ENCLAVE_OWNER &&
	    !(st.st_mode & (S_IWGRP | S_IWOTH)))
		return 0;
	errno = EPERM;
	return -1;
}

/*
 * enclave_gate_directory - open the directory of the gate files, component by component
 *
 * slurmstepd, root. No link is followed, and each directory on the way must be root's and not
 * writable by others, so that no user can have chosen what is found below. A descriptor, or -1
 * with errno: ENOENT when a directory is missing, EPERM or ELOOP when one is not trusted.
 */
int enclave_gate_directory(void)
{
	static const char *const steps[] = { ENCLAVE_GATE_STEPS };
	const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	int fd = open(ENCLAVE_ROOT, flags);

	if (fd < 0)
		return -1;
	if (owned_directory(fd) < 0)
		goto bad;
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		int next = openat(fd, steps[i], flags);

		if (next < 0)
			goto bad;
		(void)close(fd);
		fd = next;
		if (owned_directory(fd) < 0)
			goto bad;
	}
	return fd;
bad : {
	int err = errno;

	(void)close(fd);
	errno = err;
	return -1;
}
}

/* read_all - read to the end of a file or to size bytes; the count, or -1 with errno */
static ssize_t read_all(int fd, char *buf, size_t size)
{
	size_t have = 0;

	while (have < size) {
		ssize_t n = read(fd, buf + have, size - have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		have += (size_t)n;
	}
	return (ssize_t)have;
}

/* open_once - open name, check it, read it; as enclave_gate_read, ESTALE when just replaced */
static ssize_t open_once(int directory, const char *name, char *buf, size_t size)
{
	struct stat st;
	ssize_t n = -1;
	int err;
	/* O_NONBLOCK: a FIFO at the file's place must not hold the task for ever. */
	int fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	if (fstat(fd, &st) < 0)
		goto out;
	if (S_ISREG(st.st_mode) && st.st_nlink == 0) {
		errno = ESTALE;
		goto out;
	}
	if (!S_ISREG(st.st_mode) || st.st_uid != ENCLAVE_OWNER || st.st_gid != ENCLAVE_GROUP ||
	    (st.st_mode & 07777) != 0400 || st.st_nlink != 1) {
		errno = EPERM;
		goto out;
	}
	n = read_all(fd, buf, size);
	if (n > ENCLAVE_GO_MAX) {
		errno = EFBIG;
		n = -1;
	}
out:
	err = errno;
	(void)close(fd);
	errno = err;
	return n;
}

/*
 * enclave_gate_read - read one gate file beneath directory
 * @buf, @size: at least ENCLAVE_GO_MAX + 1 bytes, so that a longer file is noticed
 *
 * slurmstepd, root. The file must be regular, root:root, 0400, with one link. The keeper
 * replaces GO by rename while we read; a file that lost its name between open and fstat is
 * opened again. The count of bytes, or -1 with errno: ENOENT no such file, EPERM or ELOOP not
 * trusted, EFBIG too long.
 */
ssize_t enclave_gate_read(int directory, const char *name, char *buf, size_t size)
{
	ssize_t n = -1;

	for (int i = 0; i < 8; i++) {
		n = open_once(directory, name, buf, size);
		if (n >= 0 || errno != ESTALE)
			break;
	}
	return n;
}
