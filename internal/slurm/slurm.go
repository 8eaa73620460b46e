package slurm

import (
	"context"
	"errors"
	"slices"
	"time"
)

// Runner runs a program with a fixed environment and no shell. An exit status other than 0 is
// an error that implements Stderr() string.
type Runner interface {
	Run(ctx context.Context, program string, args ...string) ([]byte, error)
}

// Slurm forgets jobs and nodes that it was asked about, and refuses what comes too late.
var (
	ErrNoJob       = errors.New("slurm does not know this job")
	ErrNoNode      = errors.New("slurm does not know this node")
	ErrFinished    = errors.New("the job has already finished")
	ErrInteractive = errors.New("only batch jobs can be requeued")
	ErrLossy       = errors.New("sacctmgr would change the text")
)

// Job is what Slurm says of a job now. It holds no text that the job's owner chose freely.
type Job struct {
	ID        uint32
	State     string // in capitals: PENDING, RUNNING, COMPLETING, ...
	Restarts  uint32
	Requeue   bool
	Batch     bool
	UID       uint32
	TimeLimit time.Duration // 0 is unlimited or unknown
	Partition string
	Account   string
	Nodes     string // hostlist, "" while pending
	AllocNode string // the submit host, "" when it is no host name
	ExitCode  uint32 // wait status
}

// Alive is true while this start of the job runs or is being set up. PENDING is not: a start
// that went back into the queue is over. COMPLETING is not: what runs is being ended.
func (j Job) Alive() bool {
	return slices.Contains([]string{"CONFIGURING", "RUNNING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING"}, j.State)
}

// open is true while slurmctld takes changes of the job's text.
func (j Job) open() bool { return j.Alive() || j.State == "PENDING" }

// notLaunched is the signal in the wait status of a batch script that slurmd could not launch, such as one whose
// directory is not on the node: slurmd reports its own error, 4021, in its place [tried: 4021 on 22.05, "0:53" on 24.11 and 26.05].
const notLaunched = 4021 & 0x7f

// Refused is true when a start that was never let in ended by itself: the gate makes its tasks
// fail with an exit code, or slurmd could not launch it in a place that is another job's. A job that its
// owner cancelled has neither, nor has one that timed out.
// While EpilogSlurmctld runs, the state is always COMPLETING and only this tells [tried].
func (j Job) Refused() bool {
	signal := j.ExitCode & 0x7f
	failed := signal == 0 && j.ExitCode>>8 != 0 || signal == notLaunched
	return failed && slices.Contains([]string{"COMPLETING", "FAILED"}, j.State)
}

// Node is what Slurm says of a node.
type Node struct {
	Name   string
	State  []string // words of "idle+drain", in small letters
	Reason string   // "" when there is none
}

// Drained is true when no job can start on the node because somebody drained it.
func (n Node) Drained() bool {
	return slices.ContainsFunc(n.State, func(s string) bool { return s == "drain" || s == "drained" || s == "draining" })
}

// CLI is the driver on Slurm's commands: it works with every version.
type CLI struct{ run Runner }

// NewCLI makes the driver for the cluster of this machine's slurm.conf: all its commands, also
// sacctmgr and sacct, mean that one unless they are told another.
func NewCLI(run Runner) *CLI { return &CLI{run: run} }
