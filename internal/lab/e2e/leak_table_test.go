//go:build e2e

package e2e_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// leakTable is the list, attempt by attempt, with counts, and its control runs.
type leakTable struct {
	rows  []string
	count map[string]int
	shown int
}

func (l *leakTable) add(a leakAttempt, out [2]leakOutcome) {
	if l.count == nil {
		l.count = map[string]int{}
	}
	e, c := out[0], out[1]
	l.count[a.expect]++
	control := fmt.Sprintf("%d", c.Clear)
	if a.encrypted {
		control = fmt.Sprintf("encrypted by itself, %d outside", c.Outside)
	}
	if c.Clear > 0 || a.encrypted && c.Outside > 0 {
		l.shown++
	}
	l.rows = append(l.rows, fmt.Sprintf("%s\t%s\t%d\t%d\t%d\t%d\t%s", a.name, a.expect, e.Clear, e.Outside, e.Tunnel, e.refused, control))
}

func (l *leakTable) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "attempt\tenclave\tin the clear (B)\toutside the tunnel (B)\ttunnel (B)\trefused (packets)\tcontrol: in the clear (B)")
	for _, r := range l.rows {
		_, _ = fmt.Fprintln(w, r)
	}
	_ = w.Flush() // a strings.Builder never fails
	fmt.Fprintf(&b, "leaks: %d attempts: %d tunnelled, %d refused and counted, %d denied by the kernel or without a way, %d in the clear and named; %d controls show the leak\n",
		len(l.rows), l.count[tunnelled]+l.count[silent], l.count[refusal], l.count[denied]+l.count[nowhere], l.count[named], l.shown)
	return b.String()
}

// tellsLeaks reads the report of the job: what was refused is counted, what is in the clear is named.
func tellsLeaks(t *testing.T, id string, refused int) {
	t.Helper()
	var report struct {
		Network struct {
			Rejected     int
			OutsideBytes uint64 `json:"outside_bytes"`
		}
		NotCovered []string `json:"not_covered"`
	}
	require.NoError(t, json.Unmarshal([]byte(must(t, "n0", "root", "enclave", "report", id, "--json")), &report))
	assert.GreaterOrEqual(t, report.Network.Rejected, refused)
	assert.Zero(t, report.Network.OutsideBytes)
	text := must(t, "login", "alice", "enclave", "report", id)
	assert.Regexp(t, fmt.Sprintf(`packets rejected %d\b`, report.Network.Rejected), text)
	for _, word := range []string{"sbcast", "X11", "environment at launch", "setuid"} {
		assert.Contains(t, strings.Join(report.NotCovered, "\n"), word)
		assert.Contains(t, text, word)
	}
}
