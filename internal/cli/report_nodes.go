package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/job"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// mostRows is how many nodes have a line each: a report is one screen. Of more nodes, those of whom the same is to be
// said share a line.
const mostRows = 24

// mostFolded is the length of a hostlist that a line of the table has room for.
const mostFolded = 60

// nodeTable has one line per node, or per kind of nodes, and below it what failed.
func nodeTable(out io.Writer, nodes []api.NodeReport) {
	w := table(out)
	row(w, "  Node", "Evidence", "Result", "Firmware (bl/tee/snp/ucode)", "Measurement", "Closed again")
	var lines, faults shared
	fold := len(nodes) > mostRows
	for _, n := range nodes {
		evidence := or(n.Product, "none")
		if n.Simulated {
			evidence += " SIMULATED"
		}
		if n.Weak {
			evidence += " WEAK"
		}
		lines.add(n.Name, evidence, or(string(n.Result), "none"), or(n.TCB, "-"), shortHex(n.Measurement), closed(n.Closed))
		for _, c := range n.Checks {
			if c.Result != enclave.CheckPass {
				faults.add(n.Name, fmt.Sprintf("check %s: %s: %s", c.Name, c.Result, c.Reason))
			}
		}
		if n.Refusal != nil {
			r := *n.Refusal
			if fold {
				r.Node = "" // the line says it
			}
			faults.add(n.Name, r.Error())
		}
	}
	for _, l := range lines.rows(fold) {
		row(w, append([]string{"  " + l.who()}, l.cells...)...)
	}
	_ = w.Flush() // a strings.Builder never fails
	for _, l := range faults.rows(fold) {
		_, _ = fmt.Fprintf(out, "    %s: %s\n", printable(l.who()), printable(l.cells[0]))
	}
}

// said is what there is to say of some nodes.
type said struct {
	nodes, cells []string
}

// who names the nodes: a few by name, many as a hostlist with their number.
func (s said) who() string {
	list := job.Fold(s.nodes)
	if len(s.nodes) == 1 {
		return list
	}
	if len(list) > mostFolded {
		list = s.nodes[0] + ", ..., " + s.nodes[len(s.nodes)-1]
	}
	return fmt.Sprintf("%s (%d nodes)", list, len(s.nodes))
}

// shared collects what is said of nodes, in the order in which it was said first.
type shared []said

func (s *shared) add(node string, cells ...string) { *s = append(*s, said{[]string{node}, cells}) }

// rows are the lines, those with the same cells as one where they are to be folded.
func (s shared) rows(fold bool) shared {
	if !fold {
		return s
	}
	var out shared
	at := map[string]int{}
	for _, l := range s {
		key := strings.Join(l.cells, "\x00")
		if i, known := at[key]; known {
			out[i].nodes = append(out[i].nodes, l.nodes...)
			continue
		}
		at[key] = len(out)
		out = append(out, said{slices.Clone(l.nodes), l.cells})
	}
	return out
}

func closed(c *bool) string {
	switch {
	case c == nil:
		return "not told"
	case *c:
		return "yes"
	}
	return "NO"
}
