package verifier

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// How often the clocks of running jobs are looked at, and how often Slurm is asked about one
// that is overdue and over.
const (
	lookOverdue = time.Second
	askOverdue  = 10 * time.Second
)

// clock ends the jobs of nodes that have not proved themselves again in time. It runs until the
// verifier is closed.
func (v *Verifier) clock() {
	t := time.NewTicker(lookOverdue)
	defer t.Stop()
	for {
		select {
		case <-v.life.Done():
			return
		case <-t.C:
			for k, nodes := range v.overdue(time.Now()) {
				v.late(k, nodes)
			}
		}
	}
}

// overdue lists the nodes whose renewal is overdue, by job.
func (v *Verifier) overdue(now time.Time) map[enclave.JobKey][]string {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := map[enclave.JobKey][]string{}
	for k, r := range v.runs {
		var late []string
		for n, at := range r.seen {
			if now.Sub(at) > v.Config.Limits.Overdue() && r.why[n] == nil {
				late = append(late, n)
			}
		}
		if len(late) == 0 || now.Sub(r.asked) < askOverdue {
			continue
		}
		slices.Sort(late)
		r.asked, out[k] = now, late
	}
	return out
}

// isEnding is true when Slurm was told to end the job: its nodes are no longer renewed.
func (v *Verifier) isEnding(k enclave.JobKey) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.runs[k] == nil || v.runs[k].ending != nil
}

// late rules on overdue nodes. A job that is over in Slurm has no more keepers, and nothing to
// prove. Who killed a keeper, or which switch died, nobody knows from here: no node is drained
// for silence, and the epilog says whether the node is in order.
func (v *Verifier) late(k enclave.JobKey, nodes []string) {
	ctx, cancel := context.WithTimeout(v.life, closeTimeout)
	defer cancel()
	state, err := v.Site.JobState(ctx, k.Job)
	switch {
	case err != nil: // no answer is no proof of life or death: asked again
		return
	case !isAlive(state, k):
		v.forget(k)
		return
	case v.isEnding(k):
		return
	}
	for _, n := range nodes {
		why := enclave.Refuse(codeOverdue, enclave.FaultService, "the node has not proved itself again for %s", v.Config.Limits.Overdue())
		why.Node, why.Check = n, "renewal"
		why.Fix = "look at enclave-keeper's lines in /var/log/slurm-enclave.log on " + n
		e, err := v.expel(ctx, k, why)
		if err != nil {
			continue
		}
		v.alarm(ctx, codeOverdue, fmt.Sprintf("job %s is ended: node %s has not proved itself again in time", k, n))
		if e.Refusal == why {
			v.endJob(ctx, e)
		}
	}
}
