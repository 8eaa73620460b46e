/*
 * netbench: latency and bandwidth between rank 0 and rank 1, printed as the OSU micro-benchmarks
 * print them: a header, then a line for each size with the size in bytes and the figure.
 *
 * Every figure is bounded in time, since a slow network must not make the program run for
 * minutes. `enclave bench net` compiles it with the site's own mpicc and reads what it prints.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

#define SECONDS_A_SIZE 0.5
#define ROUNDS_WARM 20
#define ROUNDS_MAX 1500
#define DEEP 8
#define LARGEST (1 << 20)

static int compare(const void *a, const void *b)
{
	double d = *(const double *)a - *(const double *)b;

	return (d > 0) - (d < 0);
}

/*
 * half_round_trip returns the median in microseconds, at rank 0. Rank 0 leads, and says after
 * every round whether there is another one. The first rounds are not counted: connections and
 * tunnels are made by them.
 */
static double half_round_trip(int rank, char *buffer, int size)
{
	static double times[ROUNDS_MAX];
	double begin = MPI_Wtime();
	int rounds = -ROUNDS_WARM;
	int more = 1;

	while (more) {
		if (rank == 0) {
			double start = MPI_Wtime();

			MPI_Send(buffer, size, MPI_CHAR, 1, 0, MPI_COMM_WORLD);
			MPI_Recv(buffer, size, MPI_CHAR, 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
			if (rounds >= 0)
				times[rounds] = (MPI_Wtime() - start) * 1e6 / 2;
			rounds++;
			more = rounds < ROUNDS_MAX &&
			       (rounds < 1 || MPI_Wtime() - begin < SECONDS_A_SIZE);
			MPI_Send(&more, 1, MPI_INT, 1, 1, MPI_COMM_WORLD);
		} else {
			MPI_Recv(buffer, size, MPI_CHAR, 0, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
			MPI_Send(buffer, size, MPI_CHAR, 0, 0, MPI_COMM_WORLD);
			MPI_Recv(&more, 1, MPI_INT, 0, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
		}
	}
	if (rank != 0)
		return 0;
	qsort(times, rounds, sizeof(times[0]), compare);
	return times[rounds / 2];
}

/* stream returns MB/s (10^6 bytes) of messages of a size, DEEP of them under way, at rank 0. */
static double stream(int rank, char *buffer, int size)
{
	MPI_Request requests[DEEP];
	double begin, seconds, bytes = 0;
	int more = 1;

	MPI_Barrier(MPI_COMM_WORLD);
	begin = MPI_Wtime();
	while (more) {
		for (int i = 0; i < DEEP; i++) {
			if (rank == 0)
				MPI_Isend(buffer, size, MPI_CHAR, 1, 2, MPI_COMM_WORLD,
					  &requests[i]);
			else
				MPI_Irecv(buffer + (size_t)i * LARGEST, size, MPI_CHAR, 0, 2,
					  MPI_COMM_WORLD, &requests[i]);
		}
		MPI_Waitall(DEEP, requests, MPI_STATUSES_IGNORE);
		bytes += (double)size * DEEP;
		if (rank == 0) {
			more = MPI_Wtime() - begin < SECONDS_A_SIZE;
			MPI_Send(&more, 1, MPI_INT, 1, 3, MPI_COMM_WORLD);
		} else {
			MPI_Recv(&more, 1, MPI_INT, 0, 3, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
		}
	}
	MPI_Barrier(MPI_COMM_WORLD); /* what was sent has arrived */
	seconds = MPI_Wtime() - begin;
	return bytes / seconds / 1e6;
}

int main(int argc, char **argv)
{
	static const int latencies[] = { 8, 8192, 65536, LARGEST };
	static const int bandwidths[] = { 65536, LARGEST };
	char library[MPI_MAX_LIBRARY_VERSION_STRING] = "";
	int rank, ranks, length;
	char *buffer = calloc(DEEP, LARGEST);

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &ranks);
	MPI_Get_library_version(library, &length);
	if (!buffer || ranks != 2) {
		fprintf(stderr, "netbench: want 2 ranks and 8 MiB of memory each\n");
		MPI_Abort(MPI_COMM_WORLD, 1);
	}
	if (rank == 0)
		printf("# library %.*s\n# netbench MPI Latency Test\n# %-8s%18s\n", 60, library,
		       "Size", "Latency (us)");
	for (size_t i = 0; i < sizeof(latencies) / sizeof(latencies[0]); i++) {
		double us = half_round_trip(rank, buffer, latencies[i]);

		if (rank == 0)
			printf("%-10d%18.2f\n", latencies[i], us);
	}
	if (rank == 0)
		printf("# netbench MPI Bandwidth Test\n# %-8s%18s\n", "Size", "Bandwidth (MB/s)");
	for (size_t i = 0; i < sizeof(bandwidths) / sizeof(bandwidths[0]); i++) {
		double rate = stream(rank, buffer, bandwidths[i]);

		if (rank == 0)
			printf("%-10d%18.2f\n", bandwidths[i], rate);
	}
	free(buffer);
	MPI_Finalize();
	return 0;
}
