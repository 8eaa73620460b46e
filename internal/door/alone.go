package door

import (
	"context"
	"os"
	"slices"
	"strconv"

	"github.com/slurm-enclave/slurm-enclave/internal/host/process"
	"github.com/slurm-enclave/slurm-enclave/internal/job"
)

// alone ends what other prologs and epilogs of this job still do on this node. Slurm runs one at a time;
// another one is of a slurmd that was killed, and nobody waits for it. Beside this one it would open what
// this one closes, or write GO when the job is over. What it had begun is in its journal.
func (n *node) alone(ctx context.Context) error {
	own := os.Getpid()
	return process.KillPrograms(ctx, func(p process.Process) bool {
		return p.PID != own && p.UID == 0 && (p.Name == Prolog().name || p.Name == Epilog().name) && n.serves(process.Environment(p.PID))
	})
}

// serves says whether a program with this environment was started on a node for this job. PrologSlurmctld
// is the same program, and may run on the same host.
func (n *node) serves(environment []string) bool {
	node := slices.ContainsFunc(environment, func(v string) bool {
		return v == "SLURM_SCRIPT_CONTEXT="+string(job.PrologNode) || v == "SLURM_SCRIPT_CONTEXT="+string(job.EpilogNode)
	})
	return node && slices.Contains(environment, "SLURM_JOB_ID="+strconv.FormatUint(uint64(n.job.Job), 10))
}
