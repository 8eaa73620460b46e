package keeper

import (
	"context"
	"time"
)

// Stuck ends what keeps killed processes of the job's users from ending.
type Stuck interface {
	// Look looks once, and says how many such things it ended.
	Look() (ended int, err error)
}

// stuckPace is how often the keeper looks. What hears no signal has to be gone before slurmstepd gives up and
// Slurm drains the node: UnkillableStepTimeout of slurm.conf(5), 60 s by default. It takes two looks.
const stuckPace = 5 * time.Second

// loosening looks until ctx ends. The epilog, which does the same, comes when slurmstepd is through.
func (k *keeper) loosening(ctx context.Context) {
	said := false
	for k.Host.Wait(ctx, k.Host.Now()+stuckPace) == nil {
		ended, err := k.Stuck.Look()
		if err != nil && !said {
			k.Log.WithError(err).Warn("killed processes that can't end are not looked for")
		}
		said = err != nil
		if ended > 0 {
			k.Log.WithField("connections", ended).Warn("FUSE connections ended: killed processes waited for their answers")
		}
	}
}
