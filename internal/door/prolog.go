package door

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/host/file"
	"github.com/slurm-enclave/slurm-enclave/internal/job"
	"github.com/slurm-enclave/slurm-enclave/internal/journal"
	"github.com/slurm-enclave/slurm-enclave/internal/release"
	"github.com/slurm-enclave/slurm-enclave/internal/stage"
)

// NodeProlog opens an enclave on this node and returns the exit status: 1 only when the fault
// is this node's, for Slurm then drains it.
func NodeProlog(ctx context.Context, log *logrus.Logger, env func(string) string) int {
	j, context, err := job.FromPrologEnv(env)
	if err != nil {
		log.WithError(err).Error("environment not understood")
		return exitBroken
	}
	n, err := newNode(log, j, context.Node)
	if err != nil {
		log.WithError(err).Error("node not ready for enclaves")
		return exitBroken
	}
	if err := n.alone(ctx); err != nil {
		n.log.WithError(err).Error("another prolog or epilog of this job does not end")
		return exitBroken
	}
	// What an earlier start was granted or denied says nothing about this one.
	if err := n.gate.Remove(j.Job); err != nil {
		n.log.WithError(err).Error("old gate files not removed")
		return exitBroken
	}
	r := n.open(ctx)
	if r == nil {
		n.log.WithFields(phaseFields(n.phases)).Info("enclave is up")
		return exitFine
	}
	n.deny(r)
	return status(r)
}

// open does it all and returns the refusal that counts, the verifier's word first.
func (n *node) open(ctx context.Context) *enclave.Refusal {
	if err := n.configure(); err != nil {
		return serviceError("E002", err)
	}
	defer n.client.Close()
	if !slices.Contains(n.config.Partitions, n.job.Partition) {
		return enclave.Refuse("E120", enclave.FaultRequest, "this node takes jobs of %v only, not of partition %q", n.config.Partitions, n.job.Partition)
	}
	release, err := n.hold(time.Second)
	if err != nil {
		return n.refused(ctx, err)
	}
	defer release()
	limit := n.config.Limits.Barrier() + openMargin
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err = n.timed("ground", func() error { return n.ground(ctx) }); err != nil {
		return n.refused(ctx, err)
	}
	if err = n.begin(ctx); err != nil {
		return n.refused(ctx, err)
	}
	defer func() { _ = n.journal.Leave() }()
	defer n.keys.Wipe()
	if err = n.attested(ctx); err != nil {
		return n.refused(ctx, err)
	}
	if err = stage.Up(ctx, n.rooms(), nil); err != nil {
		return n.refused(ctx, err)
	}
	if err = n.admitted(ctx); err != nil {
		down := stage.Down(context.WithoutCancel(ctx), n.rooms(), nil)
		return n.refused(ctx, errors.Join(err, down))
	}
	return nil
}

// openMargin is what opening may take besides the one deadline of both barriers.
const openMargin = 20 * time.Second

// refused decides whose fault an error is. A refusal that came from the verifier is decided; one
// of this node's own is told to it, and its answer counts.
func (n *node) refused(ctx context.Context, err error) *enclave.Refusal {
	r := refusalOf(err, "E209")
	if r.Code == "E209" {
		r = ofWant(err, r)
	}
	if _, decided := errors.AsType[said](err); decided {
		return r
	}
	return n.broken(ctx, r)
}

// ofWant finds a better word for an error that has no code of its own: the time, the space or the
// descriptors were not enough.
func ofWant(err error, r *enclave.Refusal) *enclave.Refusal {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return enclave.Refuse("E504", enclave.FaultService, "%s", err)
	case errors.Is(err, syscall.ENOSPC):
		return nodeError("E249", "make space in "+RunDir, "%s", err)
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return nodeError("E547", "raise LimitNOFILE of slurmd", "%s", err)
	}
	return r
}

// said marks what came from the verifier, or that it can't be reached: the node has nothing to
// add to it.
type said struct{ error }

// Unwrap gives the verifier's own words.
func (s said) Unwrap() error { return s.error }

func heard(err error) error {
	if err == nil {
		return nil
	}
	return said{err}
}

// begin opens the journal. One that is there is of a prolog of this very start that was killed;
// what it began is taken down first.
func (n *node) begin(ctx context.Context) error {
	header := journal.Header{JobKey: n.job.JobKey, UID: n.job.UID, User: n.job.User, Boot: n.boot}
	if err := (file.Trust{}).Directory(n.directory()); err != nil {
		return nodeError("E249", "check "+RunDir, "%s", err)
	}
	var err error
	n.journal, err = journal.Create(RunDir, header, boottime)
	if errors.Is(err, fs.ErrExist) {
		if err = stage.Down(ctx, n.rooms(), nil); err != nil {
			return err
		}
		if err = journal.Remove(RunDir, n.job.JobKey); err != nil {
			return nodeError("E249", "check "+RunDir, "%s", err)
		}
		n.journal, err = journal.Create(RunDir, header, boottime)
	}
	if err != nil {
		return ofWant(err, nodeError("E249", "check space and permissions of "+RunDir, "%s", err))
	}
	n.log.WithField("release", release.Version).Debug("journal opened")
	return nil
}

func phaseFields(phases map[string]int64) logrus.Fields {
	fields := logrus.Fields{}
	for name, ms := range phases {
		fields["ms_"+name] = ms
	}
	return fields
}
