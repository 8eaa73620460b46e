package verifier

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
)

// callTimeout bounds one call of the site role; nodes wait for it.
const callTimeout = 5 * time.Second

// maxReason keeps a drain reason on one line of sinfo -R.
const maxReason = 200

// ruling is what follows from the failures of one job.
type ruling struct {
	drain  []enclave.Refusal // one per node
	resume []ledger.Failure  // drained before, for what turned out to be the policy's fault
	storm  []string          // names of the checks that are the policy's fault
}

// name is under which name a failure is counted.
func name(r enclave.Refusal) string { return cmp.Or(r.Check, string(r.Code)) }

// rule decides whose fault the failures of a job are. It is pure. all holds every failure of the
// job so far, fresh those that were not ruled on yet, window the earlier failures per check.
func rule(size int, all, fresh []enclave.Refusal, window map[string][]ledger.Failure, nodes uint32) ruling {
	var out ruling
	for _, r := range fresh {
		check, here, distinct := name(r), map[string]bool{}, map[string]bool{}
		for _, x := range all {
			if name(x) == check {
				here[x.Node], distinct[x.Node] = true, true
			}
		}
		for _, w := range window[check] {
			distinct[w.Node] = true
		}
		everywhere := size >= 2 && len(here) == size
		if !everywhere && uint64(len(distinct)) < uint64(nodes) {
			out.drain = append(out.drain, r)
			continue
		}
		if slices.Contains(out.storm, check) {
			continue
		}
		out.storm = append(out.storm, check)
		for _, w := range window[check] {
			if w.Drained && !w.Resumed {
				out.resume = append(out.resume, w)
			}
		}
	}
	return out
}

// setBack is by how much a clock may be corrected back before failures that are later than now are
// those of another time.
const setBack = time.Minute

// blame rules on new failures and carries the ruling out: drains are done, or have been tried,
// before it returns, so that Slurm's own "Prolog error" is never the first reason on a node.
// It gives the checks that are the policy's fault.
func (v *Verifier) blame(ctx context.Context, size int, all, fresh []enclave.Refusal) (map[string]bool, error) {
	v.storm.Lock()
	defer v.storm.Unlock()
	guard := v.Config.Controller.Storm
	now := time.Now()
	since := now.Add(-time.Duration(guard.Minutes) * time.Minute)
	window := map[string][]ledger.Failure{}
	for _, r := range fresh {
		list, err := v.Ledger.Failures(ctx, name(r), since, now.Add(setBack))
		if err != nil {
			return nil, err
		}
		window[name(r)] = list
	}
	out := rule(size, all, fresh, window, guard.Nodes)
	storm := map[string]bool{}
	for _, check := range out.storm {
		storm[check] = true
	}
	var rows []ledger.Failure
	for _, r := range fresh {
		rows = append(rows, ledger.Failure{Name: name(r), Code: r.Code, Node: r.Node, At: now, Drained: !storm[name(r)]})
	}
	if err := v.Ledger.AddFailures(ctx, rows); err != nil {
		return nil, err
	}
	v.carryOut(ctx, out)
	return storm, nil
}

func (v *Verifier) carryOut(ctx context.Context, out ruling) {
	for _, check := range out.storm {
		v.alarm(ctx, "E530", fmt.Sprintf("check %s fails on many nodes at once: taken for a fault of the policy, no node is drained for it", check))
	}
	for _, r := range out.drain {
		call, cancel := context.WithTimeout(ctx, callTimeout)
		err := v.Site.Drain(call, r.Node, drainReason(r))
		cancel()
		if err != nil {
			v.alarm(ctx, "E511", fmt.Sprintf("node %s could not be drained for %s: %v", r.Node, r.Code, err))
		}
	}
	for _, f := range out.resume {
		call, cancel := context.WithTimeout(ctx, callTimeout)
		err := v.Site.Resume(call, f.Node, "enclave:"+string(f.Code), f.At)
		cancel()
		if err == nil {
			err = v.Ledger.Resumed(ctx, f.Name, f.Node)
		}
		if err != nil {
			v.alarm(ctx, "E511", fmt.Sprintf("node %s could not be resumed: %v", f.Node, err))
		}
	}
}

// Return undoes our latest drain of a node that has proved itself since. What an admin drained,
// or Slurm, stays drained.
func (v *Verifier) Return(ctx context.Context, node string) error {
	v.storm.Lock()
	defer v.storm.Unlock()
	f, err := v.Ledger.LastFailure(ctx, node)
	if err != nil || !f.Drained || f.Resumed {
		return enclave.Refuse("E140", enclave.FaultRequest, "node %s is not drained by the verifier", printable(node, 64))
	}
	if !v.proofs.since(node, f.At) {
		r := enclave.Refuse("E156", enclave.FaultRequest, "node %s was drained for %s and has not proved itself since, or not within %d minutes", node, f.Code, int(proofGood.Minutes()))
		r.Fix = "on " + node + ", as root: enclave node prove; then again: enclave node return " + node
		return r
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := v.Site.Resume(call, node, "enclave:"+string(f.Code), f.At); err != nil {
		return enclave.Refuse("E511", enclave.FaultService, "node %s could not be resumed: %v", node, err)
	}
	if err := v.Ledger.Resumed(ctx, f.Name, node); err != nil {
		return ledgerRefusal(err)
	}
	return nil
}

// drainReason is "enclave:E2xx what (fix)", printable, on one line.
func drainReason(r enclave.Refusal) string {
	s := "enclave:" + string(r.Code) + " " + r.Reason
	if r.Fix != "" {
		s += " (" + r.Fix + ")"
	}
	return printable(s, maxReason)
}

// printable keeps what a terminal and Slurm's own files take: ASCII without quotes and control characters.
func printable(s string, most int) string {
	s = strings.Map(func(c rune) rune {
		switch {
		case c == '"' || c == '\\':
			return '\''
		case c < ' ' || c > '~':
			return '?'
		}
		return c
	}, s)
	return s[:min(len(s), most)]
}
