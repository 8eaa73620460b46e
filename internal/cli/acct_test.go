package cli_test

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/cli"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/slurm"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// books is an accounting that keeps what it was asked.
type books struct {
	records []slurm.Record
	err     error
	asked   []slurm.Want
}

func (b *books) Records(_ context.Context, w slurm.Want) ([]slurm.Record, error) {
	b.asked = append(b.asked, w)
	return b.records, b.err
}

// quarter is a job that was put back once, one that was refused, one outside enclaves with a hostile name,
// one that still waits, and one that accounting has lost.
func quarter() ([]slurm.Record, []api.Shares) {
	again, refused, plain, waits := record(4711, 2, 3), record(4712, 10, 11), record(4713, 12, 50), record(4714, 20, 21)
	first := record(4711, 0, 1)
	first.State = "REQUEUED"
	refused.State, refused.ExitCode = "FAILED", "1:0"
	plain.Partition, plain.NodeCount, plain.Nodes = "cpu", 1, "c1"
	plain.JobName = "=cmd|' /C calc'!A0\n4713|x\x1b[2J\"q\",\xff é"
	waits.State, waits.Start, waits.End, waits.Elapsed, waits.CPUTime, waits.NodeCount, waits.Nodes, waits.Name = "PENDING", nil, nil, 0, 0, 0, "", "4714_[0-9]"
	share := func(job, restart uint32, minute int, v enclave.Verdict) api.Share {
		return api.Share{
			Job: job, Restart: restart, UID: 2001, User: "mmuster", Account: "digimed", Partition: "cpu-sev", Tenant: "digimed", Policy: enclave.Digest{1, 2},
			Verdict: v, Registered: at(minute).Add(300 * time.Millisecond), Nodes: 3, Affirmed: 3,
		}
	}
	zeroth, good, bad, lost := share(4711, 0, 0, enclave.VerdictIncomplete), share(4711, 1, 2, enclave.VerdictProtected), share(4712, 0, 10, enclave.VerdictRefused), share(4700, 0, 5, enclave.VerdictSimulated)
	zeroth.Affirmed, zeroth.Code = 2, "E504"
	go1 := good.Registered.Add(1342 * time.Millisecond)
	good.Started, good.TunnelBytes, good.Receipt = &go1, 123456789, "sha256:"+strings.Repeat("3f9c", 16)
	bad.Affirmed, bad.Code, lost.Weak = 2, "E235", true
	return []slurm.Record{first, again, refused, plain, waits}, []api.Shares{
		{Shares: []api.Share{zeroth, good}, More: "1.4711.1"}, {Shares: []api.Share{bad, lost}},
	}
}

func record(job uint32, from, to int) slurm.Record {
	return slurm.Record{
		Job: job, Name: fmt.Sprint(job), User: "mmuster", UID: 2001, Account: "digimed", Partition: "cpu-sev", State: "COMPLETED", ExitCode: "0:0",
		Submit: at(from).Add(-time.Second), Start: at(from), End: at(to), Elapsed: time.Duration(to-from) * time.Minute, CPUTime: time.Duration(to-from) * 6 * time.Minute,
		NodeCount: 3, Nodes: "n[1-3]", JobName: "job.sh",
	}
}

func acctCommand(t *testing.T, src *source, b *books, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	open := func(context.Context, string) (cli.Source, error) { return src, nil }
	now := func() time.Time { return time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC) }
	c := cli.NewRootCommand(&out, &out, "1.2.3", open, cli.NewAcctCommand(open, b, now))
	c.SetArgs(append([]string{"acct"}, args...))
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

func status(err error) int {
	if exit, ok := errors.AsType[*cli.ExitError](err); ok {
		return exit.Code
	}
	return 1
}

func TestAcct(t *testing.T) {
	t.Parallel()
	records, shares := quarter()
	src := source{me: api.Me{UID: 5, Operator: true}, shares: shares}
	for name, args := range map[string][]string{"acct-table": nil, "acct-csv": {"--format", "csv"}, "acct-json": {"--format", "json"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mine := src
			out, err := acctCommand(t, &mine, &books{records: records}, args...)
			require.NoError(t, err)
			golden(t, name, out)
		})
	}
	t.Run("every CSV line has every column, and a hostile name stays in its cell", func(t *testing.T) {
		t.Parallel()
		mine := src
		out, err := acctCommand(t, &mine, &books{records: records}, "--format=csv")
		require.NoError(t, err)
		rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
		require.NoError(t, err)
		require.Len(t, rows, 7)
		var list cli.AcctList
		document, err := acctCommand(t, &mine, &books{records: records}, "--json")
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal([]byte(document), &list))
		var keys []string
		d := json.NewDecoder(strings.NewReader(document[strings.Index(document, `"jobs": [`)+len(`"jobs": [`):]))
		for tok, errTok := d.Token(); errTok == nil && tok != json.Delim('}'); tok, errTok = d.Token() {
			if key, ok := tok.(string); ok && d.More() {
				keys = append(keys, key)
				_, _ = d.Token()
			}
		}
		assert.Equal(t, keys, rows[0], "the CSV's columns are the JSON's keys")
		name := rows[5][len(rows[0])-1]
		assert.True(t, strings.HasPrefix(name, "'=cmd|"), name)
		assert.NotContains(t, out, "\x1b")
		assert.NotContains(t, name, "\n")
		assert.Contains(t, *list.Jobs[4].JobName, "\n4713|x", "the JSON has it as it is")
	})
	t.Run("a cell that a spreadsheet would run gets an apostrophe", func(t *testing.T) {
		t.Parallel()
		for _, bad := range []string{"=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"} {
			r := record(1, 0, 1)
			r.JobName, r.Account, r.User = bad, bad, bad
			mine := source{me: api.Me{Operator: true}, shares: []api.Shares{{}}}
			out, err := acctCommand(t, &mine, &books{records: []slurm.Record{r}}, "--format=csv")
			require.NoError(t, err)
			rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
			require.NoError(t, err)
			for _, cell := range rows[1] {
				if cell != "" {
					assert.NotContains(t, "=+-@\t\r", cell[:1], "%q", bad)
				}
			}
		}
	})
}

func TestAcctAsksForWhatOneMaySee(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		me   api.Me
		args []string
		own  bool
	}{
		{"a user", api.Me{UID: 2001}, nil, true},
		{"a coordinator", api.Me{UID: 2001, Accounts: []string{"digimed"}}, nil, false},
		{"an operator", api.Me{UID: 2001, Operator: true}, nil, false},
		{"an operator of the own jobs", api.Me{UID: 2001, Operator: true}, []string{"--own"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := &books{}
			_, err := acctCommand(t, &source{me: c.me, shares: []api.Shares{{}}}, b, append(c.args, "--since=2026-11-01", "--account=a,b", "--partition=cpu-sev")...)
			require.NoError(t, err)
			require.Len(t, b.asked, 1)
			want := slurm.Want{Since: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), Accounts: []string{"a", "b"}, Partitions: []string{"cpu-sev"}}
			if c.own {
				want.UID = &c.me.UID
			}
			assert.Equal(t, want, b.asked[0])
		})
	}
	t.Run("times ago", func(t *testing.T) {
		t.Parallel()
		noon := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
		for text, want := range map[string]time.Time{
			"36h": noon.Add(-36 * time.Hour), "7d": noon.AddDate(0, 0, -7), "13w": noon.AddDate(0, 0, -91), "2026-11-20T10:30": noon.Add(-49*time.Hour - 30*time.Minute),
			"2026-11-22T12:00:00+02:00": noon.Add(-2 * time.Hour),
		} {
			b := &books{}
			_, err := acctCommand(t, &source{shares: []api.Shares{{}}}, b, "--since", text)
			require.NoError(t, err)
			assert.True(t, want.Equal(b.asked[0].Since), "%s: %s", text, b.asked[0].Since)
		}
	})
}

func TestAcctExitStatus(t *testing.T) {
	t.Parallel()
	stuck := source{shares: []api.Shares{{More: "x"}}}
	for _, c := range []struct {
		name string
		src  source
		book books
		args []string
		want int
	}{
		{"no such day", source{}, books{}, []string{"--since=yesterday"}, cli.ExitUsage},
		{"no such format", source{}, books{}, []string{"--format=xml"}, cli.ExitUsage},
		{"an argument too much", source{}, books{}, []string{"4711"}, cli.ExitUsage},
		{"enclaved is away", source{err: errors.New("away")}, books{}, nil, cli.ExitUnknown},
		{"no credential", source{err: enclave.Refuse("E133", enclave.FaultRequest, "x")}, books{}, nil, cli.ExitDenied},
		{"slurmdbd is away", source{}, books{err: errors.New("away")}, nil, cli.ExitUnknown},
		{"a list that does not go on", stuck, books{}, nil, cli.ExitUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := acctCommand(t, &c.src, &c.book, c.args...)
			require.Error(t, err)
			assert.Equal(t, c.want, status(err))
		})
	}
}
