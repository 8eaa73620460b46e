// Package fencetest is a packet filter for tests of the fence: it keeps tables, refuses what
// nftables refuses and prints itself as text. It filters nothing.
package fencetest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/slurm-enclave/slurm-enclave/internal/fence"
)

// Host is the packet filter of one node. The zero Host has no table. Its methods may be called from
// several goroutines, but Fail and Forget are to be set while nobody calls them.
type Host struct {
	Fail   map[string]error // by method name: that method fails
	Forget bool             // Replace succeeds and does nothing

	mu     sync.Mutex
	tables map[string]fence.Table
	counts map[string]map[string]fence.Count
}

var _ fence.Kernel = (*Host)(nil)

// Replace implements fence.Kernel. A rule that names a set, chain or counter that is not there
// fails and changes nothing, as a transaction does.
func (h *Host) Replace(_ context.Context, t fence.Table, gone ...string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.Fail["Replace"]; err != nil || h.Forget {
		return err
	}
	if err := whole(t); err != nil {
		return err
	}
	if h.tables == nil {
		h.tables, h.counts = map[string]fence.Table{}, map[string]map[string]fence.Count{}
	}
	for _, name := range gone {
		delete(h.tables, name)
		delete(h.counts, name)
	}
	if len(t.Chains) > 0 {
		h.tables[t.Name] = t
		h.counts[t.Name] = map[string]fence.Count{}
		for _, c := range t.Counters {
			h.counts[t.Name][c] = fence.Count{}
		}
	}
	return nil
}

func whole(t fence.Table) error {
	for _, ch := range t.Chains {
		for _, r := range ch.Rules {
			if r.Counter != "" && !slices.Contains(t.Counters, r.Counter) {
				return fmt.Errorf("rule %q: no counter", r)
			}
			if r.Do == fence.Jump && !slices.ContainsFunc(t.Chains, func(c fence.Chain) bool { return c.Name == r.To && c.Hook == "" }) {
				return fmt.Errorf("rule %q: no chain", r)
			}
			for _, m := range r.Match {
				addressed := slices.Contains([]fence.Key{fence.Source4, fence.Source6, fence.Target4, fence.Target6}, m.Key)
				if addressed && !slices.ContainsFunc(t.Sets, func(s fence.Set) bool { return s.Name == m.Name }) {
					return fmt.Errorf("rule %q: no set", r)
				}
			}
		}
	}
	return nil
}

// Read implements fence.Kernel.
func (h *Host) Read(_ context.Context, t fence.Table) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.Fail["Read"]; err != nil {
		return err
	}
	have, ok := h.tables[t.Name]
	if !ok {
		return fence.ErrAbsent
	}
	if have.String() != t.String() {
		return fmt.Errorf("table %s differs", t.Name)
	}
	return nil
}

// Counters implements fence.Kernel.
func (h *Host) Counters(_ context.Context, table string) (map[string]fence.Count, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.tables[table]; !ok {
		return nil, fence.ErrAbsent
	}
	return maps.Clone(h.counts[table]), h.Fail["Counters"]
}

// Count sets a counter, as packets would.
func (h *Host) Count(table, counter string, c fence.Count) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts[table][counter] = c
}

// String prints the tables in the order of their names.
func (h *Host) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(h.tables)) {
		b.WriteString(h.tables[name].String())
	}
	return b.String()
}
