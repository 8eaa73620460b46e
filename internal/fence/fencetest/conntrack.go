package fencetest

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/fence"
)

// Conntrack is what a node's conntrack knows of.
type Conntrack []fence.Flow

var _ fence.Flows = (*Conntrack)(nil)

// Forget implements fence.Flows.
func (c *Conntrack) Forget(_ context.Context, mark, mask uint32, over func(fence.Flow) bool) (int, error) {
	before := len(*c)
	*c = slices.DeleteFunc(*c, func(f fence.Flow) bool { return f.Mark&mask == mark && over(f) })
	return before - len(*c), nil
}

// String prints a flow in a line.
func (c *Conntrack) String() string {
	var b strings.Builder
	for _, f := range *c {
		fmt.Fprintf(&b, "protocol %d state %d mark %#08x\n", f.Protocol, f.TCPState, f.Mark)
	}
	return b.String()
}
