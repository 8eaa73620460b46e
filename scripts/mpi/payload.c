/*
 * mpi FILE: every rank sends the text of FILE, over and over, to every other rank.
 *
 * The text comes from a file: what stands in arguments or the environment is in Slurm's launch
 * message.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIZE (256 * 1024)
#define ROUNDS 8

/* fill repeats the text of the file over the whole buffer; 0 or -1 */
static int fill(char *buffer, const char *path)
{
	size_t length;
	FILE *f = fopen(path, "r");

	if (!f)
		return -1;
	length = fread(buffer, 1, 256, f);
	fclose(f);
	if (length == 0)
		return -1;
	for (size_t i = length; i < SIZE; i++)
		buffer[i] = buffer[i - length];
	return 0;
}

int main(int argc, char **argv)
{
	static char text[SIZE], got[SIZE];
	char version[MPI_MAX_LIBRARY_VERSION_STRING] = "";
	int rank, ranks, length, right = 0, all = 0;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &ranks);
	if (argc != 2 || fill(text, argv[1]) < 0)
		MPI_Abort(MPI_COMM_WORLD, 1);
	for (int round = 0; round < ROUNDS; round++) {
		int to = (rank + 1) % ranks, from = (rank + ranks - 1) % ranks;

		/* Small messages take another way through the libraries than large ones. */
		int size = round % 2 ? SIZE : 512;

		MPI_Sendrecv(text, size, MPI_CHAR, to, 0, got, size, MPI_CHAR, from, 0,
			     MPI_COMM_WORLD, MPI_STATUS_IGNORE);
		right += memcmp(text, got, (size_t)size) == 0;
		MPI_Bcast(got, SIZE, MPI_CHAR, round % ranks, MPI_COMM_WORLD);
	}
	MPI_Reduce(&right, &all, 1, MPI_INT, MPI_SUM, 0, MPI_COMM_WORLD);
	MPI_Get_library_version(version, &length);
	version[strcspn(version, ",\n")] = '\0';
	if (rank == 0)
		printf("%s: %d ranks, %d of %d messages are right\n", version, ranks, all,
		       ranks * ROUNDS);
	fflush(stdout);
	MPI_Finalize();
	return all == ranks * ROUNDS || rank != 0 ? 0 : 1;
}
