// Package scale measures how a job of many nodes comes up: one enclaved, and N nodes that speak
// to it as prologs do.
//
// Real are the evidence (a test AMD hierarchy: a chip and a P-384 key for each node), TLS 1.3 with a
// client certificate and an address for each node, HTTP on connections that stay open, the
// appraisal, the ledger on the disk, and each node's check of roster and inclusion. enclaved runs in
// a process of its own, so that its time and memory are told from those of the nodes. There is no
// Slurm, which says of every job that it runs. A few nodes have a WireGuard device with all the job's peers, each in
// a network of its own; through these nothing is sent, for the other ends are not there.
//
// It is used by cmd/enclave-lab.
package scale

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Options say what to measure.
type Options struct {
	Nodes     int
	Directory string        // chips are kept here from one run to the next; "" is one that is removed
	Sample    float64       // part of the nodes that fetch all leaves, 0 to 1
	Spread    time.Duration // over which the nodes post their evidence; 0: all at once
	Straggler time.Duration // how long after the others the last node posts
	Lost      bool          // the last node takes a nonce and is never heard of again
	Twice     bool          // the first node posts its evidence twice at once, and then another
	Cold      bool          // enclaved has never seen the chips' certificates
	Devices   int           // the first nodes that make a WireGuard device of the roster before they are ready; needs root
	Profile   string        // directory for CPU and heap profiles of enclaved, "" for none
	Server    []string      // command that runs Serve, without its arguments
}

// maxNodes is what names and addresses of this package can tell apart.
const maxNodes = 60000

func (o Options) check() error {
	switch {
	case o.Nodes < 2 || o.Nodes > maxNodes:
		return fmt.Errorf("measure scale: %d nodes, want 2 to %d", o.Nodes, maxNodes)
	case o.Sample < 0 || o.Sample > 1:
		return fmt.Errorf("measure scale: sample of %g, want 0 to 1", o.Sample)
	case o.Devices < 0 || o.Devices > o.Nodes:
		return fmt.Errorf("measure scale: %d devices for %d nodes", o.Devices, o.Nodes)
	case o.Devices > 0 && os.Geteuid() != 0:
		return fmt.Errorf("measure scale: %d nodes with a WireGuard device need root; --devices 0 makes none", o.Devices)
	case o.Lost && (o.Straggler > 0 || o.Twice):
		return errors.New("measure scale: a lost node and another fault in one run tell nothing")
	}
	return nil
}

// Run measures one start of one job and prints what it found, last the line "scale: ...".
func Run(ctx context.Context, o Options, out io.Writer) (err error) {
	if err = o.check(); err != nil {
		return err
	}
	if err = descriptors(o.Nodes); err != nil {
		return err
	}
	if o.Directory == "" {
		if o.Directory, err = os.MkdirTemp("", "enclave-scale-"); err != nil {
			return fmt.Errorf("measure scale: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(o.Directory)) }()
	}
	if o.Directory, err = filepath.Abs(o.Directory); err != nil {
		return fmt.Errorf("measure scale: %w", err)
	}
	s, err := newSite(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.remove()) }()
	began := time.Now()
	nodes, err := s.populate(ctx)
	if err != nil {
		return err
	}
	say(out, "%d chips, keys and certificates in %.1f s", len(nodes), time.Since(began).Seconds())
	e, err := s.start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.stop()) }()
	r := &run{Options: o, site: s, nodes: nodes, enclaved: e, out: out}
	return r.measure(ctx)
}

func say(out io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(out, "# "+format+"\n", args...) // a reader that went away is not told
}
