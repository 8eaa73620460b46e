package cli

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/acct"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// AcctJob is one start of a job in the JSON and, by the same names, in the CSV. What one side does not know
// is null there and empty here. Times are RFC 3339 in UTC.
type AcctJob struct {
	Job          uint32          `json:"job"`
	Name         *string         `json:"job_id"` // "4_7" for an element of an array
	Restart      *uint32         `json:"restart"`
	User         *string         `json:"user"`
	UID          uint32          `json:"uid"`
	Account      string          `json:"account"`
	Partition    string          `json:"partition"`
	State        *string         `json:"state"` // null: accounting does not know this start
	ExitCode     *string         `json:"exit_code"`
	Submitted    *time.Time      `json:"submitted"`
	Started      *time.Time      `json:"started"`
	Ended        *time.Time      `json:"ended"`
	ElapsedS     *int64          `json:"elapsed_s"`
	CPUS         *int64          `json:"cpu_s"`
	NodeCount    *int            `json:"node_count"`
	Nodes        *string         `json:"nodes"` // hostlist
	Verdict      enclave.Verdict `json:"verdict"`
	Weak         *bool           `json:"weak"`
	Code         *enclave.Code   `json:"code"`
	Tenant       *string         `json:"tenant"`
	Policy       *string         `json:"policy"`         // its digest
	Affirmed     *int            `json:"nodes_attested"` // of node_count
	AttestMS     *int64          `json:"attest_ms"`      // from registration to GO
	TunnelBytes  *uint64         `json:"tunnel_bytes"`
	OutsideBytes *uint64         `json:"outside_bytes"`
	Receipt      *string         `json:"receipt"`
	JobName      *string         `json:"name"` // the user's own words
}

// AcctList is the document behind `enclave acct --format json`.
type AcctList struct {
	Since time.Time `json:"since"`
	Jobs  []AcctJob `json:"jobs"`
}

// AcctDocument makes the document of the lines.
func AcctDocument(since time.Time, lines []acct.Line) AcctList {
	out := AcctList{Since: since.UTC(), Jobs: make([]AcctJob, len(lines))}
	for i, l := range lines {
		out.Jobs[i] = acctJob(l)
	}
	return out
}

func acctJob(l acct.Line) AcctJob {
	j := AcctJob{Verdict: l.Verdict()}
	if s := l.Share; s != nil {
		j.Job, j.UID, j.Account, j.Partition = s.Job, s.UID, s.Account, s.Partition
		j.Restart, j.Weak, j.Tenant, j.Policy, j.Affirmed = &s.Restart, &s.Weak, &s.Tenant, new(s.Policy.String()), &s.Affirmed
		j.TunnelBytes, j.OutsideBytes, j.User = &s.TunnelBytes, &s.OutsideBytes, &s.User
		if s.Code != "" {
			j.Code = &s.Code
		}
		if s.Started != nil {
			j.AttestMS = new(max(s.Started.Sub(s.Registered).Milliseconds(), 0))
		}
		if s.Receipt != "" {
			j.Receipt = &s.Receipt
		}
	}
	if r := l.Record; r != nil {
		j.Job, j.UID, j.Account, j.Partition = r.Job, r.UID, r.Account, r.Partition
		j.Name, j.User, j.State, j.ExitCode, j.JobName = &r.Name, &r.User, &r.State, &r.ExitCode, new(strings.ToValidUTF8(r.JobName, "?"))
		j.Submitted, j.Started, j.Ended = &r.Submit, r.Start, r.End
		j.ElapsedS, j.CPUS = new(int64(r.Elapsed/time.Second)), new(int64(r.CPUTime/time.Second))
		j.NodeCount, j.Nodes = &r.NodeCount, &r.Nodes
		if j.Restart == nil {
			j.Restart = r.Restart
		}
	}
	return j
}

// AcctScreen is the lines as text. Its first line says when some of them are simulated, its last counts.
func AcctScreen(lines []acct.Line) string {
	var b strings.Builder
	count := map[enclave.Verdict]int{}
	jobs := map[uint32]bool{}
	for _, l := range lines {
		count[l.Verdict()]++
		jobs[acctJob(l).Job] = true
	}
	if n := count[enclave.VerdictSimulated]; n > 0 {
		fmt.Fprintf(&b, "SIMULATED: %d of %s had no hardware protection\n", n, several(len(lines), "start"))
	}
	w := table(&b)
	row(w, "JOB", "START", "USER", "ACCOUNT", "PARTITION", "STATE", "ELAPSED", "NODES", "VERDICT", "ATTESTED", "TUNNEL", "RECEIPT", "NAME")
	for _, l := range lines {
		row(w, acctCells(acctJob(l))...)
	}
	_ = w.Flush() // a strings.Builder never fails
	fmt.Fprintf(&b, "%s, %s:", several(len(jobs), "job"), several(len(lines), "start"))
	for i, v := range []enclave.Verdict{enclave.VerdictProtected, enclave.VerdictSimulated, enclave.VerdictRefused, enclave.VerdictIncomplete, acct.None} {
		fmt.Fprintf(&b, "%s %d %s", strings.Repeat(",", min(i, 1)), count[v], v)
	}
	return clean(b.String() + "\n")
}

func acctCells(j AcctJob) []string {
	verdict := strings.ToUpper(string(j.Verdict))
	if j.Verdict == acct.None {
		verdict = string(acct.None)
	}
	if j.Weak != nil && *j.Weak {
		verdict += ", WEAK"
	}
	if j.Code != nil {
		verdict += ", " + string(*j.Code)
	}
	attested, nodes, elapsed, tunnel := "-", "-", "-", "-"
	if j.Affirmed != nil {
		attested = fmt.Sprint(*j.Affirmed)
		if j.AttestMS != nil {
			attested += fmt.Sprintf(" in %.1f s", float64(*j.AttestMS)/1000)
		}
		tunnel = size(*j.TunnelBytes)
	}
	if j.NodeCount != nil {
		nodes = fmt.Sprint(*j.NodeCount)
	}
	if j.ElapsedS != nil {
		elapsed = clock(*j.ElapsedS)
	}
	return []string{
		or(value(j.Name), fmt.Sprint(j.Job)), orNone(j.Restart), or(value(j.User), "-"), or(j.Account, "-"), or(j.Partition, "-"),
		or(value(j.State), "not in accounting"), elapsed, nodes, verdict, attested, tunnel, shortReceipt(value(j.Receipt)), or(shorten(value(j.JobName), 24), "-"),
	}
}

// clock is a time as Slurm's commands print it: [D-]HH:MM:SS.
func clock(seconds int64) string {
	s := fmt.Sprintf("%02d:%02d:%02d", seconds/3600%24, seconds/60%60, seconds%60)
	if days := seconds / 86400; days > 0 {
		s = fmt.Sprintf("%d-%s", days, s)
	}
	return s
}

// several is a number of things in words: 1 job, 2 jobs.
func several(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

func shortReceipt(s string) string {
	digits, ok := strings.CutPrefix(s, "sha256:")
	if !ok {
		return "-"
	}
	return shortHex(digits)
}

func shorten(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most-2]) + ".."
	}
	return s
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func orNone(n *uint32) string {
	if n == nil {
		return "-"
	}
	return strconv.FormatUint(uint64(*n), 10)
}

// acctColumns are the CSV's, in the order of AcctJob.
func acctColumns() []string {
	return []string{
		"job", "job_id", "restart", "user", "uid", "account", "partition", "state", "exit_code", "submitted", "started", "ended", "elapsed_s", "cpu_s",
		"node_count", "nodes", "verdict", "weak", "code", "tenant", "policy", "nodes_attested", "attest_ms", "tunnel_bytes", "outside_bytes",
		"receipt", "name",
	}
}

// printCSV writes one line for each start, as RFC 4180 has it.
func printCSV(out io.Writer, lines []acct.Line) error {
	w := csv.NewWriter(out)
	if err := w.Write(acctColumns()); err != nil {
		return err
	}
	for _, l := range lines {
		if err := w.Write(csvCells(acctJob(l))); err != nil {
			return err
		}
	}
	w.Flush()
	return w.Error()
}

func csvCells(j AcctJob) []string {
	return []string{
		cell(&j.Job), words(j.Name), cell(j.Restart), words(j.User), cell(&j.UID), words(&j.Account), words(&j.Partition), words(j.State),
		words(j.ExitCode), moment(j.Submitted), moment(j.Started), moment(j.Ended), cell(j.ElapsedS), cell(j.CPUS), cell(j.NodeCount), words(j.Nodes),
		string(j.Verdict), cell(j.Weak), cell(j.Code), words(j.Tenant), cell(j.Policy), cell(j.Affirmed), cell(j.AttestMS), cell(j.TunnelBytes),
		cell(j.OutsideBytes), cell(j.Receipt), words(j.JobName),
	}
}

func cell[T any](v *T) string {
	if v == nil {
		return ""
	}
	return fmt.Sprint(*v)
}

func moment(t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// words is a text that people have chosen. A spreadsheet takes a cell that begins with one of these signs for
// a formula and runs it for whoever opens the file, so it gets an apostrophe, which spreadsheets don't show;
// control characters, which a terminal may obey, become question marks.
func words(s *string) string {
	if s == nil {
		return ""
	}
	text := strings.Map(func(r rune) rune {
		if r < ' ' || (r >= 0x7f && r < 0xa0) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(*s, "?"))
	if text != "" && strings.ContainsRune("=+-@", []rune(text)[0]) {
		return "'" + text
	}
	return text
}
