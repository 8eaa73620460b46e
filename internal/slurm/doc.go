// Package slurm asks and tells Slurm. CLI does so through Slurm's own commands: scontrol, squeue, sinfo,
// scancel, sacct and sacctmgr. REST does so through slurmrestd, and leaves to CLI what that has no call
// for. Both are the site role's Slurm (internal/site), and a third could be.
//
// A user controls much of what Slurm prints: a job's name may hold a newline and
// "JobState=COMPLETED" [tried on 22.05.8], so "scontrol show job" is never parsed, and
// "squeue --json" there prints all jobs whatever -j says. CLI asks squeue and sinfo for
// named columns that a user cannot write, each closed by "|", and for one free text per call.
//
// The package decides nothing: what to drain, requeue or write is the site role's matter
// (internal/site). It starts no process itself; cmd hands it a Runner from internal/host.
package slurm
