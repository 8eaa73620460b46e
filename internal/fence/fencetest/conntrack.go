package fencetest

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/fence"
)

// Conntrack is a node's.
type Conntrack struct {
	Known []fence.Flow
	Most  int // how many it takes
}

var _ fence.Flows = (*Conntrack)(nil)

// Count implements fence.Flows.
func (c *Conntrack) Count(context.Context) (flows, most int, err error) {
	return len(c.Known), c.Most, nil
}

// Forget implements fence.Flows.
func (c *Conntrack) Forget(_ context.Context, mark, mask uint32, over func(fence.Flow) bool) (int, error) {
	before := len(c.Known)
	c.Known = slices.DeleteFunc(c.Known, func(f fence.Flow) bool { return f.Mark&mask == mark && over(f) })
	return before - len(c.Known), nil
}

// String prints a flow in a line.
func (c *Conntrack) String() string {
	var b strings.Builder
	for _, f := range c.Known {
		fmt.Fprintf(&b, "protocol %d state %d mark %#08x\n", f.Protocol, f.TCPState, f.Mark)
	}
	return b.String()
}
