/*
 * pingpong [TURNS]: who runs where, latency and bandwidth between rank 0 and each other rank.
 *
 * Every size is bounded in time, since a slow network must not make the program run for minutes.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECONDS_A_SIZE 0.4
#define ROUNDS_MAX 1500

static int compare(const void *a, const void *b)
{
	double d = *(const double *)a - *(const double *)b;

	return (d > 0) - (d < 0);
}

/* median_half_round_trip returns microseconds; rank 0 leads, and says when the last round is. */
static double median_half_round_trip(int rank, int peer, char *buffer, int size)
{
	static double times[ROUNDS_MAX];
	double begin = MPI_Wtime();
	int rounds = 0;
	int more = 1;

	while (more) {
		if (rank == 0) {
			double start = MPI_Wtime();

			MPI_Send(buffer, size, MPI_CHAR, peer, 0, MPI_COMM_WORLD);
			MPI_Recv(buffer, size, MPI_CHAR, peer, 0, MPI_COMM_WORLD,
				 MPI_STATUS_IGNORE);
			times[rounds++] = (MPI_Wtime() - start) * 1e6 / 2;
			more = rounds < ROUNDS_MAX && MPI_Wtime() - begin < SECONDS_A_SIZE;
			MPI_Send(&more, 1, MPI_INT, peer, 1, MPI_COMM_WORLD);
		} else {
			MPI_Recv(buffer, size, MPI_CHAR, 0, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
			MPI_Send(buffer, size, MPI_CHAR, 0, 0, MPI_COMM_WORLD);
			MPI_Recv(&more, 1, MPI_INT, 0, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
		}
	}
	if (rounds == 0)
		return 0;
	qsort(times, rounds, sizeof(times[0]), compare);
	return times[rounds / 2];
}

int main(int argc, char **argv)
{
	static const int sizes[] = { 8, 8192, 1 << 20 };
	char name[MPI_MAX_PROCESSOR_NAME] = "";
	int rank, ranks, length, sum = 0;
	int turns = argc > 1 ? atoi(argv[1]) : 1;
	char *buffer = calloc(1, 1 << 20);

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &ranks);
	MPI_Get_processor_name(name, &length);
	if (!buffer)
		MPI_Abort(MPI_COMM_WORLD, 1);
	MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
	printf("rank %d of %d on %s, sum of ranks %d\n", rank, ranks, name, sum);
	fflush(stdout);
	MPI_Barrier(MPI_COMM_WORLD);
	for (int turn = 0; turn < turns * (ranks - 1); turn++) {
		int peer = 1 + turn % (ranks - 1);

		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			double us = 0;

			if (rank == 0 || rank == peer)
				us = median_half_round_trip(rank, peer, buffer, sizes[i]);
			if (rank == 0)
				printf("0 <-> %d: %7d bytes %10.1f us %10.1f MB/s\n", peer,
				       sizes[i], us, us > 0 ? sizes[i] / us : 0);
			MPI_Barrier(MPI_COMM_WORLD);
		}
	}
	free(buffer);
	MPI_Finalize();
	return 0;
}
