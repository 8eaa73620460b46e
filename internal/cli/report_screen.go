package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// ReportScreen is the report as text, without colour and without any byte but printable ASCII
// and newlines: names in it were chosen by users.
func ReportScreen(r api.Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", headline(r))
	fields(&b, [][2]string{
		{"User / account", r.User + " / " + r.Account},
		{"Tenant", r.Tenant},
		{"Partition", r.Partition + " of cluster " + r.Cluster},
		{"Start", fmt.Sprintf("%d, registered %s%s%s", r.Restart, instant(&r.Registered), since(", let in ", r.Started), since(", over ", r.Ended))},
		{"Verdict", verdictLine(r)},
		{"Reason", refusalLine(r.Refusal)},
		{"Renewed", renewalLine(r.Nodes)},
	})
	for _, d := range r.Departures {
		fmt.Fprintf(&b, "  %s  %s left the roster (epoch %d)%s\n", instant(&d.At), printable(d.Node), d.Epoch, printable(because(d.Refusal)))
	}
	b.WriteString("\n")
	nodeTable(&b, r.Nodes)
	b.WriteString("\n")
	fields(&b, [][2]string{
		{"Network", networkLine(r)},
		{"Storage", storageLine(r.Storage)},
		{"Timeline", or(timeline(r.TimelineMS, false), "not told")},
		{"Taken down", timeline(r.TimelineMS, true)},
	})
	b.WriteString("\n  Not covered by this report:\n")
	for _, n := range r.NotCovered {
		fmt.Fprintf(&b, "    - %s\n", n)
	}
	fmt.Fprintf(&b, "\n  Receipt  %s\n", receiptLine(r))
	return clean(b.String())
}

func receiptLine(r api.Report) string {
	if r.Sequence == 0 {
		return or(r.Receipt, "not yet")
	}
	return fmt.Sprintf("number %d, %s; enclave receipt export %d.%d", r.Sequence, r.Receipt, r.Job, r.Restart)
}

// headline says in the first line what nobody may overlook.
func headline(r api.Report) string {
	s := strings.ToUpper(string(r.Verdict))
	if simulated(r) {
		s = "SIMULATED"
		if r.Verdict != enclave.VerdictSimulated {
			s += ", " + strings.ToUpper(string(r.Verdict))
		}
	}
	if r.Weak {
		s += ", WEAK"
	}
	s += fmt.Sprintf(": job %d, start %d", r.Job, r.Restart)
	if simulated(r) {
		s += " - no hardware protection"
	}
	return s
}

// simulated is true when the verdict or one node says so: one is enough.
func simulated(r api.Report) bool {
	return r.Verdict == enclave.VerdictSimulated || slices.ContainsFunc(r.Nodes, func(n api.NodeReport) bool { return n.Simulated })
}

func verdictLine(r api.Report) string {
	good := 0
	for _, n := range r.Nodes {
		if n.Result == enclave.StatusAffirming {
			good++
		}
	}
	s := fmt.Sprintf("%s: %d of %d nodes affirmed", strings.ToUpper(string(r.Verdict)), good, len(r.Nodes))
	if r.Verdict == enclave.VerdictRefused && r.Started != nil {
		s = fmt.Sprintf("REFUSED while it ran: let in with all %d nodes affirmed", len(r.Nodes))
	}
	switch {
	case simulated(r):
		s += " by a test hierarchy, nothing was protected"
	case r.Verdict == enclave.VerdictProtected:
		s += " by hardware evidence before the first rank started"
	}
	if r.Weak {
		s += "; WEAK: the measurement does not cover the nodes' disks"
	}
	return s
}

func refusalLine(r *enclave.Refusal) string {
	if r == nil {
		return ""
	}
	return r.Error() + ", fault: " + or(string(r.Fault), "nobody's") + "; see enclave explain " + string(r.Code)
}

// renewalLine says how often the nodes proved themselves again; nothing for a job that was too
// short for it.
func renewalLine(nodes []api.NodeReport) string {
	var last *time.Time
	var counts []int
	for _, n := range nodes {
		counts = append(counts, n.Renewals)
		if n.Renewed != nil && (last == nil || n.Renewed.After(*last)) {
			last = n.Renewed
		}
	}
	if last == nil {
		return ""
	}
	least, most := slices.Min(counts), slices.Max(counts)
	if least == most {
		return fmt.Sprintf("each node %d times, last %s", most, instant(last))
	}
	return fmt.Sprintf("each node %d to %d times, last %s", least, most, instant(last))
}

func because(r *enclave.Refusal) string {
	if r == nil {
		return ""
	}
	return ": " + string(r.Code) + " " + r.Reason
}

// networkLine never prints a zero that nobody counted: nodes tell their counters at the end.
func networkLine(r api.Report) string {
	n := r.Network
	if r.Started == nil {
		return "the job was not let in"
	}
	told := 0
	for _, x := range r.Nodes {
		if x.Closed != nil {
			told++
		}
	}
	s := fmt.Sprintf("WireGuard of its own, %d peers; ", n.Peers)
	if told == 0 {
		return s + "counters are told at the end"
	}
	s += fmt.Sprintf("in the tunnel %s; outside it %s; packets rejected %d, dropped %d",
		size(n.TunnelBytes), size(n.OutsideBytes), n.Rejected, n.Dropped)
	if told < len(r.Nodes) {
		s += fmt.Sprintf("; only %d of %d nodes have told", told, len(r.Nodes))
	}
	return s
}

func storageLine(s api.Storage) string {
	if s.Backend == "" {
		return "not told"
	}
	line := fmt.Sprintf("%s: subtree %s at %s; assurance %s; transport %s", s.Backend, s.Subtree, s.Public, or(s.Assurance, "not told"), or(s.Transport, "not told"))
	if s.Isolation != "" {
		line += "; isolation " + s.Isolation
	}
	if len(s.Visible) > 0 {
		line += "; visible, too: " + strings.Join(s.Visible, ", ")
	}
	return line
}

// phases is the order in which a node passes them; others follow by name.
func phases() []string {
	return []string{
		"ground", "journal", "keys", "nonce", "report", "attest", "evidence", "barrier1", "roster", "mesh", "fence", "subtree", "probe",
		"ready", "barrier2", "go", "total", "processes_down", "subtree_down", "fence_down", "mesh_down", "files_down", "ipc_down", "teardown",
	}
}

// timeline tells the phases of the job's start, or those of its end.
func timeline(ms map[string]int64, down bool) string {
	order := phases()
	names := slices.SortedFunc(maps.Keys(ms), func(a, b string) int {
		x, y := slices.Index(order, a), slices.Index(order, b)
		switch {
		case x >= 0 && y >= 0:
			return x - y
		case x >= 0:
			return -1
		case y >= 0:
			return 1
		}
		return strings.Compare(a, b)
	})
	parts := make([]string, 0, len(names))
	for _, n := range names {
		name, ended := strings.CutSuffix(n, "_down")
		if n == "teardown" {
			name, ended = "all", true
		}
		if ended == down {
			parts = append(parts, fmt.Sprintf("%s %d ms", name, ms[n]))
		}
	}
	return strings.Join(parts, " | ")
}

// fields prints names and values in two columns and leaves empty values out.
func fields(out io.Writer, list [][2]string) {
	w := table(out)
	for _, f := range list {
		if f[1] != "" {
			row(w, "  "+f[0], f[1])
		}
	}
	_ = w.Flush() // a strings.Builder never fails
}

func table(out io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(out, 0, 0, 2, ' ', 0) }

// row writes cells; a tab or newline in a value must not make another cell.
func row(w io.Writer, cells ...string) {
	for i := range cells {
		cells[i] = printable(cells[i])
	}
	_, _ = fmt.Fprintln(w, strings.Join(cells, "\t")) // the writer below never fails
}

// printable makes one line of a foreign text.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, s)
}

// clean is the last look at a screen: no escape sequence reaches a terminal.
func clean(s string) string {
	return strings.Map(func(c rune) rune {
		if c != '\n' && (c < ' ' || c > '~') {
			return '?'
		}
		return c
	}, s)
}

func printText(out io.Writer, text string) error {
	_, err := io.WriteString(out, text)
	return err
}

func shortHex(s string) string {
	if len(s) > 12 {
		return s[:12] + ".."
	}
	return or(s, "-")
}

func instant(t *time.Time) string {
	if t == nil || t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

func since(before string, t *time.Time) string {
	if t == nil {
		return ""
	}
	return before + instant(t)
}

// size is a number of bytes, exact where it is small: "0 bytes" must mean none.
func size(n uint64) string {
	units := []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	if n < 1024 {
		return fmt.Sprintf("%d bytes", n)
	}
	f := float64(n)
	i := -1
	for f >= 1024 && i < len(units)-1 {
		f /= 1024
		i++
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}
