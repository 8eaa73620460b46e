package door

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/closed"
	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ground"
	"github.com/slurm-enclave/slurm-enclave/internal/host/family"
	"github.com/slurm-enclave/slurm-enclave/internal/host/file"
	"github.com/slurm-enclave/slurm-enclave/internal/host/mount"
	"github.com/slurm-enclave/slurm-enclave/internal/host/process"
	"github.com/slurm-enclave/slurm-enclave/internal/host/survey"
	"github.com/slurm-enclave/slurm-enclave/internal/host/tunnel"
	"github.com/slurm-enclave/slurm-enclave/internal/journal"
	"github.com/slurm-enclave/slurm-enclave/internal/release"
	"github.com/slurm-enclave/slurm-enclave/internal/subtree"
)

// closedFile is the record of the closed state that epilogs compare with.
const closedFile = StateDir + "/closed.json"

// ground is whether this node may begin a job at all: slurmd loads the gate of this release, no
// socket passes by the fence, no other job is there, and nobody's processes.
func (n *node) ground(ctx context.Context) error {
	if err := gateOf(n.config); err != nil {
		return err
	}
	if err := closedFamilies(n.config); err != nil {
		return err
	}
	if err := closedFabrics(); err != nil {
		return err
	}
	facts, err := survey.Facts(n.job.JobKey, RunDir, uidMin, nil)
	if err != nil {
		return err
	}
	todo, r := ground.Decide(facts)
	if r != nil {
		return r
	}
	return n.clean(ctx, todo)
}

// hold holds the node for this prolog or epilog: what one sets up another would take down. Two run at
// one time only where Slurm was told to put two jobs on a node.
func (n *node) hold(patience time.Duration) (release func(), err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if release, err = file.Hold(ctx, RunDir); errors.Is(err, file.ErrHeld) {
		return nil, ground.Occupied("another job's prolog or epilog runs on this node: the partition is not OverSubscribe=EXCLUSIVE")
	}
	return release, err
}

// gateOf is nil where slurmd loads the gate of this release.
func gateOf(c config.Config) error {
	if _, r := (survey.Configuration{}).Marked(Marker); r != nil {
		return r
	}
	if r := (survey.Configuration{}).Gate(os.Getenv("SLURM_CONF"), c.Slurm.Plugstack, release.Version); r != nil {
		return r
	}
	return nil
}

// closedFamilies is nil where no socket passes by the fence.
func closedFamilies(c config.Config) error {
	open, err := family.Open(config.Families())
	if err != nil {
		return err
	}
	if r := familiesRefusal(open, c.Network.Families); r != nil {
		return r
	}
	return nil
}

// closedFabrics is nil where no device of a fast network is open to users.
func closedFabrics() error {
	open, err := family.Fabrics("/dev")
	if err != nil {
		return err
	}
	if r := fabricsRefusal(open); r != nil {
		return r
	}
	return nil
}

// clean takes down what dead jobs left and ends the processes that have no business here.
func (n *node) clean(ctx context.Context, todo ground.Decision) error {
	for _, record := range todo.Clean {
		if err := n.cleanJob(ctx, record); err != nil {
			return ground.Uncleaned(record.JobKey, err)
		}
	}
	if len(todo.Kill) == 0 {
		return nil
	}
	killed := process.Kill(ctx, todo.Kill, uidMin)
	left, err := survey.Foreign(uidMin, nil)
	if err != nil {
		return err
	}
	if r := ground.StillForeign(left); r != nil {
		return r
	}
	return killed
}

// The kernel closes a killed program's sockets a moment after its process is gone.
const (
	socketPatience = time.Second
	socketPause    = 10 * time.Millisecond
)

// leftovers compares the node with its recorded closed state; the journal that is being closed
// is no leftover.
func (n *node) leftovers(ctx context.Context) []enclave.Check {
	state := closedNode(n.config, n.job.Directory())
	checks := state.Check(ctx)
	for end := time.Now().Add(socketPatience); onlySockets(checks) && time.Now().Before(end) && ctx.Err() == nil; {
		t := time.NewTimer(socketPause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
		checks = state.Check(ctx)
	}
	return checks
}

// onlySockets says whether nothing but sockets is left.
func onlySockets(checks []enclave.Check) bool {
	left := false
	for _, c := range checks {
		if c.Result == enclave.CheckPass {
			continue
		}
		if c.Name != "closed.sockets" || c.Result != enclave.CheckFail {
			return false
		}
		left = true
	}
	return left
}

func closedNode(c config.Config, ignore ...string) closed.Node {
	view := survey.Closed{View: viewConfig(c), Run: RunDir, Ignore: ignore, Least: uidMin, Places: func() ([]string, error) { return places(c) }, Ports: []uint16{c.Network.Port, tunnel.Port}}
	return closed.Node{
		Store: survey.Record{Path: closedFile}, Boot: process.BootID, Sources: view.Sources(survey.Network()),
	}
}

func subtreeRoom() subtree.Room {
	return subtree.Room{Mounter: mount.Host{}, Observer: mount.Host{}, Holders: mount.Host{}, Client: mount.Lustre{}, Space: mount.Host{}}
}

// removeJournal deletes a journal and what else of ours is in its directory.
func removeJournal(key enclave.JobKey) error { return journal.Remove(RunDir, key) }

// runDirs makes the directories on a tmpfs that a boot has emptied.
func runDirs() error {
	for _, dir := range []string{RunDir, GateDir} {
		if err := (file.Trust{}).Volatile(dir); err != nil {
			return err
		}
	}
	return nil
}
