package cli_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/cli"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o600))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, string(want), got)
}

func at(minute int) *time.Time {
	t := time.Date(2026, 11, 20, 14, minute, 11, 0, time.UTC)
	return &t
}

// protected is a job that ran well on three real nodes.
func protected() api.Report {
	yes := true
	node := func(name string) api.NodeReport {
		return api.NodeReport{
			Name: name, Result: enclave.StatusAffirming, Product: "Milan", TCB: "3/0/23/213", Measurement: "9f2a" + strings.Repeat("0", 92),
			Checks: []enclave.Check{{Name: "signature", Result: enclave.CheckPass}}, Closed: &yes,
		}
	}
	return api.Report{
		Job: 4711, Restart: 1, Cluster: "muc1", User: "mmuster", UID: 2001, Account: "digimed", Partition: "cpu-sev", Tenant: "digimed",
		Verdict: enclave.VerdictProtected, Nodes: []api.NodeReport{node("cpu-sev-1"), node("cpu-sev-2"), node("cpu-sev-3")},
		Network:    api.Network{Peers: 3, TunnelBytes: 123456789, OutsideBytes: 0, Rejected: 2},
		Storage:    api.Storage{Backend: "lustre", Subtree: "digimed", Public: "/lustre", Assurance: "L1 client view", Transport: "fabric-trusted"},
		TimelineMS: map[string]int64{"mesh": 41, "evidence": 812, "fence": 9, "zeta": 1, "subtree": 33, "fence_down": 26, "teardown": 160},
		NotCovered: []string{"Slurm's control messages", "traffic volumes and times"}, Receipt: "not yet",
		Registered: *at(2), Started: at(3), Ended: at(56),
	}
}

func simulatedReport() api.Report {
	r := protected()
	r.Verdict, r.Weak = enclave.VerdictSimulated, true
	for i := range r.Nodes {
		r.Nodes[i].Simulated, r.Nodes[i].Weak = true, true
	}
	return r
}

func refusedReport() api.Report {
	r := protected()
	no := false
	r.Verdict, r.Started, r.Storage, r.TimelineMS = enclave.VerdictRefused, nil, api.Storage{}, nil
	why := enclave.Refusal{
		Code: "E235", Fault: enclave.FaultNode, Node: "cpu-sev-2", Check: "tcb_minimum", Reason: "snp svn 21 is below 23", Fix: "update the host's firmware",
	}
	r.Nodes[1].Result, r.Nodes[1].Refusal, r.Nodes[1].Closed = enclave.StatusContraindicated, &why, &no
	r.Nodes[1].Checks = []enclave.Check{{Name: "tcb_minimum", Result: enclave.CheckFail, Reason: why.Reason}}
	r.Nodes[2] = api.NodeReport{Name: "cpu-sev-3", Result: enclave.StatusNone}
	r.Refusal = &why
	return r
}

// revokedReport is a job that lost a node while it ran.
func revokedReport() api.Report {
	r := protected()
	r.Verdict = enclave.VerdictRefused
	for i := range r.Nodes {
		r.Nodes[i].Renewals, r.Nodes[i].Renewed = 4+i, at(43+i)
	}
	r.Refusal = &enclave.Refusal{Code: "E532", Fault: enclave.FaultNode, Node: "cpu-sev-2", Check: "revoked", Reason: "the node was revoked by an operator: stolen disk"}
	r.Nodes[1].Refusal, r.Nodes[1].Closed = r.Refusal, nil
	r.Departures = []api.Departure{{Node: "cpu-sev-2", Epoch: 2, At: *at(47), Refusal: r.Refusal}}
	return r
}

func fleet() api.Nodes {
	return api.Nodes{
		Nodes: []api.NodeLine{
			{Name: "cpu-sev-1", Enrolled: true, Result: enclave.StatusAffirming, LastJob: "4711.1", LastSeen: at(3)},
			{
				Name: "cpu-sev-2", Enrolled: true, Result: enclave.StatusContraindicated, LastJob: "4711.1", LastSeen: at(3), Drained: true,
				Refusal: refusedReport().Refusal,
			},
			{Name: "cpu-sev-3", Result: enclave.StatusNone},
			{Name: "cpu-sev-4", Enrolled: true, Result: enclave.StatusNone},
		},
		Alarms:   []api.Alarm{{Code: "E530", Reason: "check tcb_minimum\nfails\x1b[2J", At: *at(9)}},
		Counters: map[string]uint64{"no_certificate": 3, "bad_credential": 1},
	}
}

func undrained() api.NodeLine {
	n := fleet().Nodes[1]
	n.Drained = false
	return n
}

func jobs() api.Jobs {
	return api.Jobs{Jobs: []api.JobLine{
		{
			Job: 4712, User: "alice", Account: "digimed", Tenant: "digimed", Nodes: []string{"a", "b"}, Verdict: enclave.VerdictSimulated,
			Weak: true, Registered: *at(4),
		},
		{Job: 4711, Restart: 1, User: "mmuster", Tenant: "digimed", Nodes: []string{"a"}, Verdict: enclave.VerdictRefused, Code: "E235", Registered: *at(2), Ended: at(3)},
	}}
}

func TestScreens(t *testing.T) {
	t.Parallel()
	running := protected()
	running.Verdict, running.Started, running.Ended = enclave.VerdictIncomplete, nil, nil
	for name, text := range map[string]string{
		"report-protected": cli.ReportScreen(protected()),
		"report-simulated": cli.ReportScreen(simulatedReport()),
		"report-refused":   cli.ReportScreen(refusedReport()),
		"report-revoked":   cli.ReportScreen(revokedReport()),
		"why-revoked":      cli.WhyScreen(cli.WhyJob(revokedReport())),
		"nodes":            cli.NodesScreen(fleet()),
		"jobs":             cli.JobsScreen(jobs()),
		"why-refused":      cli.WhyScreen(cli.WhyJob(refusedReport())),
		"why-simulated":    cli.WhyScreen(cli.WhyJob(simulatedReport())),
		"why-starting":     cli.WhyScreen(cli.WhyJob(running)),
		"why-node":         cli.WhyScreen(cli.WhyNode(fleet().Nodes[1])),
		"why-undrained":    cli.WhyScreen(cli.WhyNode(undrained())),
		"why-stranger":     cli.WhyScreen(cli.WhyNode(fleet().Nodes[2])),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			golden(t, name, text)
		})
	}
}

func TestFirstLines(t *testing.T) {
	t.Parallel()
	first := func(s string) string { line, _, _ := strings.Cut(s, "\n"); return line }
	t.Run("SIMULATED stands in the first line of every screen on a job", func(t *testing.T) {
		t.Parallel()
		for _, s := range []string{cli.ReportScreen(simulatedReport()), cli.WhyScreen(cli.WhyJob(simulatedReport())), cli.JobsScreen(jobs())} {
			assert.Contains(t, first(s), "SIMULATED")
			assert.NotContains(t, s, "PROTECTED")
		}
	})
	t.Run("one simulated node is enough, whatever the verdict says", func(t *testing.T) {
		t.Parallel()
		r := protected()
		r.Nodes[2].Simulated = true
		assert.True(t, strings.HasPrefix(cli.ReportScreen(r), "SIMULATED, PROTECTED: job 4711"), first(cli.ReportScreen(r)))
		assert.Contains(t, cli.ReportScreen(r), "no hardware protection")
		assert.NotContains(t, cli.ReportScreen(r), "by hardware evidence")
	})
	t.Run("WEAK stands in the first line", func(t *testing.T) {
		t.Parallel()
		r := protected()
		r.Weak = true
		assert.Equal(t, "PROTECTED, WEAK: job 4711, start 1", first(cli.ReportScreen(r)))
	})
}

func TestNobodysZero(t *testing.T) {
	t.Parallel()
	r := protected()
	r.Nodes[0].Closed = nil
	assert.Contains(t, cli.ReportScreen(r), "outside it 0 bytes; packets rejected 2, dropped 0; only 2 of 3 nodes have told")
	r.Nodes[1].Closed, r.Nodes[2].Closed = nil, nil
	assert.NotContains(t, cli.ReportScreen(r), "0 bytes", "while the job runs nobody has counted")
}

func TestNoByteOfOthersReachesTheTerminal(t *testing.T) {
	t.Parallel()
	evil := "x\n  Verdict  PROTECTED\t\x1b[2J\x9b\u202e"
	r := refusedReport()
	r.User, r.Account, r.Tenant, r.Receipt, r.Verdict = evil, evil, evil, evil, enclave.Verdict(evil)
	r.Nodes[0].Name, r.Nodes[0].TCB, r.NotCovered = evil, evil, []string{evil}
	r.Refusal.Reason = evil
	j := jobs()
	j.Jobs[0].User = evil
	n := fleet()
	n.Nodes[0].Name, n.Nodes[0].LastJob = evil, evil
	for _, s := range []string{cli.ReportScreen(r), cli.JobsScreen(j), cli.NodesScreen(n), cli.WhyScreen(cli.WhyJob(r))} {
		for _, c := range s {
			require.True(t, c == '\n' || c >= ' ' && c <= '~', "%q", s)
		}
	}
	assert.Len(t, strings.Split(cli.JobsScreen(j), "\n"), len(strings.Split(cli.JobsScreen(jobs()), "\n")), "no line is added")
}

// source answers with documents, or with an error.
type source struct {
	report api.Report
	err    error
	asked  []uint32

	evidence map[string]api.NodeEvidence
	receipts []api.Receipt
	keys     api.ReceiptKeys
	me       api.Me
	shares   []api.Shares // the pages
}

func (s *source) Me(context.Context) (api.Me, error) { return s.me, s.err }

func (s *source) Shares(_ context.Context, after string) (api.Shares, error) {
	if s.err != nil {
		return api.Shares{}, s.err
	}
	for i, p := range s.shares {
		if i == 0 && !strings.Contains(after, ".") || i > 0 && s.shares[i-1].More == after {
			return p, nil
		}
	}
	return api.Shares{}, errors.New("asked for " + after)
}

func (s *source) Receipt(_ context.Context, job uint32, restart *uint32) (api.Receipt, error) {
	for _, r := range s.receipts {
		if r.Job.Job == job && (restart == nil || *restart == r.Job.Restart) {
			return r, s.err
		}
	}
	return api.Receipt{}, cmp.Or(s.err, error(enclave.Refuse("E135", enclave.FaultRequest, "no enclave job %d of yours is in the ledger", job)))
}

// Receipts come in parts of two.
func (s *source) Receipts(_ context.Context, from uint64) (api.Receipts, error) {
	out := api.Receipts{}
	for _, r := range s.receipts {
		if r.Sequence >= from && len(out.Receipts) < 2 {
			out.Receipts = append(out.Receipts, r)
		}
		out.Head, out.Digest = r.Sequence, r.Digest
	}
	return out, s.err
}
func (s *source) ReceiptKeys(context.Context) (api.ReceiptKeys, error) { return s.keys, s.err }

func (s *source) Report(_ context.Context, job uint32, restart *uint32) (api.Report, error) {
	s.asked = append(s.asked, job)
	if restart != nil {
		s.asked = append(s.asked, *restart)
	}
	return s.report, s.err
}
func (s *source) Jobs(context.Context) (api.Jobs, error)   { return jobs(), s.err }
func (s *source) Nodes(context.Context) (api.Nodes, error) { return fleet(), s.err }
func (s *source) LatestEvidence(_ context.Context, node string) (api.NodeEvidence, error) {
	e, ok := s.evidence[node]
	if s.err == nil && !ok {
		return e, enclave.Refuse("E135", enclave.FaultRequest, "no evidence of node %s", node)
	}
	return e, s.err
}

// enclaveCommand runs a command line and gives what it printed and its exit status.
func enclaveCommand(t *testing.T, src *source, args ...string) (string, int) {
	t.Helper()
	var out, errOut bytes.Buffer
	open := func(_ context.Context, config string) (cli.Source, error) {
		if config == "/broken" {
			return nil, errors.New("broken")
		}
		return src, nil
	}
	c := cli.NewRootCommand(&out, &errOut, "1.2.3", open)
	c.SetArgs(args)
	err := c.ExecuteContext(t.Context())
	assert.Empty(t, errOut.String(), "main prints errors, once")
	if err == nil {
		return out.String(), 0
	}
	exit, ok := errors.AsType[*cli.ExitError](err)
	if !ok {
		return out.String(), 1
	}
	return out.String(), exit.Code
}

func TestExitStatusOfScreens(t *testing.T) {
	t.Parallel()
	incomplete := protected()
	incomplete.Verdict = enclave.VerdictIncomplete
	unheard := protected()
	unheard.Verdict = "splendid"
	for _, c := range []struct {
		name string
		src  source
		args string
		want int
	}{
		{"a protected job", source{report: protected()}, "report 4711", 0},
		{"a simulated job", source{report: simulatedReport()}, "report 4711", 0},
		{"a refused job", source{report: refusedReport()}, "report 4711 --json", 3},
		{"an incomplete job", source{report: incomplete}, "report 4711", 4},
		{"a verdict of tomorrow", source{report: unheard}, "report 4711", 4},
		{"no number", source{}, "report n1", 2},
		{"a start of a job", source{report: protected()}, "report 4711.1", 0},
		{"two starts at once", source{report: protected()}, "report 4711.1 --restart 0", 2},
		{"an element of an array", source{}, "report 4711_3", 2},
		{"why of an element of an array", source{}, "why 4711_[3-5%2]", 2},
		{"why of a start", source{report: protected()}, "why 4711.0", 0},
		{"a step", source{}, "report 4711.batch", 2},
		{"job 0", source{}, "report 0", 2},
		{"no job", source{}, "report", 2},
		{"an unknown flag", source{}, "report 1 --x", 2},
		{"an unknown command", source{}, "dance", 2},
		{"no command", source{}, "", 2},
		{"a job of others", source{err: enclave.Refuse("E135", enclave.FaultRequest, "no")}, "report 4711", 7},
		{"a caller without a right", source{err: enclave.Refuse("E133", enclave.FaultRequest, "no")}, "jobs", 5},
		{"a verifier that is away", source{err: enclave.Refuse("E500", enclave.FaultService, "no")}, "nodes", 4},
		{"a call that broke", source{err: errors.New("reset")}, "why n1", 4},
		{"a broken configuration", source{}, "nodes --config /broken", 4},
		{"explain without configuration", source{}, "explain e220 --config /broken", 0},
		{"a code that does not exist", source{}, "explain E999", 7},
		{"no code", source{}, "explain 220", 2},
		{"an unknown node", source{}, "why cpu-sev-9", 7},
		{"a node", source{}, "why cpu-sev-2", 0},
		{"a job's reason", source{report: refusedReport()}, "why 4711 --json", 0},
		{"nodes", source{}, "nodes --json", 0},
		{"jobs", source{}, "jobs --json", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, code := enclaveCommand(t, &c.src, strings.Fields(c.args)...)
			assert.Equal(t, c.want, code)
		})
	}
	t.Run("the start is passed on only when it is named", func(t *testing.T) {
		t.Parallel()
		src := &source{report: protected()}
		_, _ = enclaveCommand(t, src, "report", "7")
		_, _ = enclaveCommand(t, src, "report", "8", "--restart", "0")
		assert.Equal(t, []uint32{7, 8, 0}, src.asked)
	})
	t.Run("the JSON of a report is the document", func(t *testing.T) {
		t.Parallel()
		out, _ := enclaveCommand(t, &source{report: simulatedReport()}, "report", "4711", "--json")
		var back api.Report
		require.NoError(t, json.Unmarshal([]byte(out), &back))
		assert.Equal(t, simulatedReport(), back)
	})
	t.Run("explain prints cause, effect and fix", func(t *testing.T) {
		t.Parallel()
		out, _ := enclaveCommand(t, &source{}, "explain", "E235")
		golden(t, "explain", out)
	})
}
