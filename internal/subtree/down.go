package subtree

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-multierror"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

const (
	tries       = 4    // the first, and three after killing holders
	mostMounts  = 2048 // on one target: a user may have 1000 FUSE mounts; who mounts as fast as we unmount is not waited for
	firstPause  = 200 * time.Millisecond
	holderLimit = 5 // named in a reason
)

// Down takes the view down in reverse and looks whether anybody still has it. It trusts the
// kernel's table alone: it succeeds when Up never ran, half ran or ran twice. All targets are
// tried. The job's processes are expected to be gone; those of its ids that are not are killed.
func (r Room) Down(ctx context.Context, p Plan) error {
	var errs *multierror.Error
	for _, s := range p.Inverse() {
		if err := r.clear(ctx, p, s); err != nil {
			errs = multierror.Append(errs, err)
		}
	}
	if err := r.strays(ctx, p); err != nil {
		errs = multierror.Append(errs, err)
	}
	return errs.ErrorOrNil()
}

// clear takes everything of ours off one target, however often it is there. What stands within
// our mounts is the job's (a user can mount FUSE) and goes with them, the outermost first.
func (r Room) clear(ctx context.Context, p Plan, s Step) error {
	var lost error
	for range mostMounts {
		mounts, err := r.Observer.Mounts(ctx)
		if err != nil {
			return fmt.Errorf("subtree: %w", err)
		}
		ours := s.stack(mounts)
		if len(ours) == 0 {
			return lost
		}
		m := outermost(mounts, ours[0])
		if !m.labelled() && !strings.HasPrefix(m.FSType, "fuse") {
			if err := r.sync(ctx, syncPoint(p, mounts, m)); err != nil {
				if err.Code == CodeStuck {
					return err // unmounting would hang as well; it stays for the admin to look at
				}
				lost = errors.Join(lost, err)
			}
		}
		if err := r.unmount(ctx, p, m); err != nil {
			return errors.Join(lost, err)
		}
	}
	return errors.Join(lost, refuse(CodeAgain, enclave.FaultNode, "find who mounts there", "%s is mounted again and again", s.Target))
}

// syncPoint is where a mount's file system is synced: at the file system's own root when it is of
// that, for where servers squash root, root may not open the tenant's directory.
func syncPoint(p Plan, mounts []Mount, m Mount) string {
	if root := at(mounts, p.Root); p.Root != "" && len(root) > 0 && root[0].Device == m.Device {
		return p.Root
	}
	return m.Point
}

// sync is the evidence that nothing was lost: a write that failed after its program had ended
// shows here and nowhere else.
func (r Room) sync(ctx context.Context, point string) *enclave.Refusal {
	err := r.Observer.Sync(ctx, point)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled):
		return refuse(CodeStuck, enclave.FaultNode, "look at the file system's servers, then run the epilog again",
			"storage is stuck: sync %s did not end", point)
	}
	return refuse(CodeSync, enclave.FaultNode, "look at the file system's servers; data of the job may be lost", "sync %s: %v", point, err)
}

// unmount takes one mount off. Holders of the job's ids are killed; anybody else's process is
// named and left alone.
func (r Room) unmount(ctx context.Context, p Plan, m Mount) error {
	pause := r.pause()
	var holders []Holder
	for i := range tries {
		err := r.Mounter.Unmount(ctx, m.Point)
		if err == nil {
			return nil
		}
		if !errors.Is(err, ErrBusy) {
			return refuse(CodeAct, enclave.FaultNode, "unmount "+m.Point, "unmount %s: %v", m.Point, err)
		}
		if i == tries-1 {
			break
		}
		if holders, err = r.Holders.Holders(ctx, m); err != nil {
			return refuse(CodeBusy, enclave.FaultNode, "unmount "+m.Point, "%s is busy, and who holds it cannot be told: %v", m.Point, err)
		}
		if err := r.Holders.Kill(ctx, p.own(holders)); err != nil {
			return refuse(CodeBusy, enclave.FaultNode, "end these processes", "kill holders of %s: %v", m.Point, err)
		}
		if err := wait(ctx, pause<<i); err != nil {
			break
		}
	}
	return refuse(CodeBusy, enclave.FaultNode, "end these processes and run the epilog again", "%s is busy: %s", m.Point, names(holders))
}

// strays looks for the view in other mount namespaces: a namespace that was copied while the job
// ran keeps the mounts after they are gone here.
func (r Room) strays(ctx context.Context, p Plan) error {
	match := p.stray
	holders, err := r.Holders.Elsewhere(ctx, match)
	for i := 0; err == nil && len(holders) > 0 && i < tries; i++ {
		// What is not the job's may be a slurmstepd that is about to end.
		if err = errors.Join(r.Holders.Kill(ctx, p.own(holders)), wait(ctx, r.pause()<<i)); err == nil {
			holders, err = r.Holders.Elsewhere(ctx, match)
		}
	}
	if err != nil {
		return refuse(CodeStray, enclave.FaultNode, "look at /proc/*/mountinfo", "look for mounts in other namespaces: %v", err)
	}
	if len(holders) > 0 {
		return refuse(CodeStray, enclave.FaultNode, "end these processes and run the epilog again",
			"the job's view is still open in another mount namespace: %s", names(holders))
	}
	return nil
}

// stray matches what is this job's wherever it stands; a plan without a job matches any of ours.
func (p Plan) stray(m Mount) bool {
	if m.labelled() && (p.Label == Label || m.Source == p.Label) {
		return true
	}
	return slices.ContainsFunc(p.Steps, func(s Step) bool {
		if p.Backend == BackendLustre {
			return s.Subtree != "" && m.FSType == LustreType && m.Point == s.Target
		}
		return s.Subtree != "" && m.FSType == p.FSType && m.Point == s.Target && strings.HasSuffix(m.Root, "/"+s.tree())
	})
}

// own picks the processes of the job's user and of its subordinate ids. Ids of the system are
// never the job's, whatever a plan says.
func (p Plan) own(holders []Holder) []Holder {
	var own []Holder
	for _, h := range holders {
		sub := slices.ContainsFunc(p.SubUIDs, func(r enclave.UIDRange) bool { return h.UID >= r.Start && h.UID-r.Start < r.Count })
		if h.UID != 0 && p.UID != 0 && (h.UID == p.UID || sub) {
			own = append(own, h)
		}
	}
	return own
}

func names(holders []Holder) string {
	if len(holders) == 0 {
		return "no process is seen to hold it"
	}
	var s []string
	for _, h := range holders[:min(len(holders), holderLimit)] {
		s = append(s, h.String())
	}
	if more := len(holders) - len(s); more > 0 {
		s = append(s, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(s, ", ")
}

// pause is the time before the first try again.
func (r Room) pause() time.Duration {
	if r.Pause == 0 {
		return firstPause
	}
	return r.Pause
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
