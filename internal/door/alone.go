package door

import (
	"context"
	"os"
	"slices"
	"strconv"

	"github.com/slurm-enclave/slurm-enclave/internal/host/process"
	"github.com/slurm-enclave/slurm-enclave/internal/job"
)

// alone ends what prologs and epilogs of this job that began before this one still do on this node. Slurm
// runs one at a time; an earlier one is of a slurmd that was killed, and nobody waits for it. Beside this
// one it would open what this one closes, or write GO when the job is over. What it had begun is in its
// journal. A later one is let alone: of two that ended each other none would do the work.
func (n *node) alone(ctx context.Context) error {
	own := os.Getpid()
	began, err := process.Began(own)
	if err != nil {
		return err
	}
	return process.KillPrograms(ctx, func(p process.Process) bool {
		return p.UID == 0 && (p.Name == Prolog().name || p.Name == Epilog().name) && earlier(p.PID, began, own) && n.serves(process.Environment(p.PID))
	})
}

// earlier says whether a process began before another, which began at a time and has an id. Of two that
// began in the same tick of the clock the one with the smaller id is the earlier, for both alike.
func earlier(pid int, began uint64, than int) bool {
	at, err := process.Began(pid)
	return err == nil && (at < began || at == began && pid < than)
}

// serves says whether a program with this environment was started on a node for this job. PrologSlurmctld
// is the same program, and may run on the same host.
func (n *node) serves(environment []string) bool {
	node := slices.ContainsFunc(environment, func(v string) bool {
		return v == "SLURM_SCRIPT_CONTEXT="+string(job.PrologNode) || v == "SLURM_SCRIPT_CONTEXT="+string(job.EpilogNode)
	})
	return node && slices.Contains(environment, "SLURM_JOB_ID="+strconv.FormatUint(uint64(n.job.Job), 10))
}
