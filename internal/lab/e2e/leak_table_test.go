//go:build e2e

package e2e_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// refusals are the packets that the fence of a job has turned away from a node's way out, by counter.
type refusals map[string]int

// refusedBy reads them.
func refusedBy(t *testing.T, node, id string) refusals {
	t.Helper()
	r := refusals{}
	words := strings.Fields(must(t, node, "root", "nft", "list", "counters", "table", "inet", "enclave_"+id))
	for i, w := range words {
		if w == "counter" && slices.Contains([]string{"rejected", "escaped", "forwarded", "groups"}, words[i+1]) {
			n, err := strconv.Atoi(words[i+4])
			require.NoError(t, err, "%v", words[i:])
			r[words[i+1]] = n
		}
	}
	return r
}

// String is "3 rejected 1 groups".
func (r refusals) String() string {
	var words []string
	for _, name := range slices.Sorted(maps.Keys(r)) {
		words = append(words, fmt.Sprintf("%d %s", r[name], name))
	}
	return cmp.Or(strings.Join(words, " "), "0")
}

func (r refusals) sum() (sum int) {
	for _, n := range r {
		sum += n
	}
	return sum
}

func (r refusals) since(before refusals) refusals {
	d := refusals{}
	for name, n := range r {
		if n > before[name] {
			d[name] = n - before[name]
		}
	}
	return d
}

// of is how many packets were refused that can be an attempt's: the kernel reports groups at any time, and only who
// joins some is refused for it; what the node would pass on is of another network namespace.
func (r refusals) of(a leakAttempt) int {
	switch {
	case a.boxed:
		return r["forwarded"]
	case strings.HasPrefix(a.role.Proto, "join"):
		return r["groups"]
	default:
		return r["rejected"] + r["escaped"]
	}
}

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
	l.rows = append(l.rows, fmt.Sprintf("%s\t%s\t%d\t%d\t%d\t%s\t%s", a.name, a.expect, e.Clear, e.Outside, e.Tunnel, e.refused, control))
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
