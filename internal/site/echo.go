package site

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// A prolog or an epilog that fails drains its node twice: enclaved does, before the script ends, and
// Slurm does when slurmd tells it of the script's end. Whoever comes second finds a reason and
// leaves it. But a node that is resumed between the two is drained again, for nobody's reason, and
// stays so. That second drain is the echo of the first.

// settles is how long after a drain of ours its echo may come: twice the MessageTimeout of the samples.
const settles = time.Minute

// looks is how often an echo is looked for after a resume, firstPause apart.
const looks = 6

// slurmsOwn tells the reasons that Slurm gives for a failed script: they name no cause.
func slurmsOwn(reason string) bool {
	return slices.Contains([]string{"Prolog error", "Epilog error"}, reason)
}

// listen has the node looked at again, unless the drain that was taken back is too old for an echo.
func (s *Site) listen(ctx context.Context, e errand) error {
	if e.Looks < 1 || s.now().Sub(e.Drained) > settles {
		return nil
	}
	body, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("spool %s: %w", kindEcho, err)
	}
	if _, err = s.spool.AddErrand(ctx, kindEcho, body, s.now().Add(firstPause)); err != nil {
		return fmt.Errorf("spool %s: %w", kindEcho, err)
	}
	return nil
}

// echo takes the second drain back, once. A script that fails for another cause fails again with the next
// job, and that drain stays.
func (s *Site) echo(ctx context.Context, e errand) error {
	n, err := s.slurm.Node(ctx, e.Node)
	if err != nil {
		return err
	}
	if n.Drained() && slurmsOwn(n.Reason) {
		return s.slurm.Resume(ctx, e.Node)
	}
	e.Looks--
	return s.listen(ctx, e)
}
