// Package slurm asks and tells Slurm through its own commands: scontrol, squeue, sinfo,
// scancel, sacct and sacctmgr.
//
// A user controls much of what Slurm prints: a job's name may hold a newline and
// "JobState=COMPLETED" [tried on 22.05.8], so "scontrol show job" is never parsed, and
// "squeue --json" there prints all jobs whatever -j says. The driver asks squeue and sinfo for
// named columns that a user cannot write, each closed by "|", and for one free text per call.
//
// The package decides nothing: what to drain, requeue or write is the site role's matter
// (internal/site). It starts no process itself; cmd hands it a Runner from internal/host.
package slurm
