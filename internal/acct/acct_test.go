package acct_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/slurm-enclave/slurm-enclave/internal/acct"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/slurm"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func at(seconds int) *time.Time {
	t := noon.Add(time.Duration(seconds) * time.Second)
	return &t
}

// record is a start of alice's between two seconds.
func record(job uint32, from, to int) slurm.Record {
	return slurm.Record{Job: job, UID: 2001, Account: "digimed", Submit: *at(from - 1), Start: at(from), End: at(to)}
}

func share(job, restart uint32, seconds int) api.Share {
	return api.Share{Job: job, Restart: restart, UID: 2001, Account: "digimed", Verdict: enclave.VerdictProtected, Registered: *at(seconds)}
}

// text is one word for each line: JOB:RESTART with "-" for what a side lacks.
func text(lines []acct.Line) []string {
	out := []string{}
	for _, l := range lines {
		record, share := "-", "none"
		if l.Record != nil {
			record = fmt.Sprintf("%d@%d", l.Record.Job, int(l.Record.Submit.Sub(noon).Seconds()))
		}
		if l.Share != nil {
			share = fmt.Sprintf("%d.%d", l.Share.Job, l.Share.Restart)
		}
		out = append(out, record+"="+share)
	}
	return out
}

func all(api.Share) bool { return true }

func TestJoin(t *testing.T) {
	t.Parallel()
	operator := api.Me{UID: 5, Operator: true}
	restarts := func(r slurm.Record, n uint32) slurm.Record {
		r.Restart = &n
		return r
	}
	other := record(4, 10, 20)
	other.UID = 2002
	waiting := record(6, 40, 50)
	waiting.Start, waiting.End = nil, nil
	running := record(7, 60, 70)
	running.End = nil
	for name, c := range map[string]struct {
		me      api.Me
		records []slurm.Record
		shares  []api.Share
		want    []string
	}{
		"a job in an enclave and one outside": {operator, []slurm.Record{record(1, 10, 20), record(2, 12, 20)}, []api.Share{share(1, 0, 10)}, []string{"1@9=1.0", "2@11=none"}},
		"each start of a requeued job has its own": {
			operator,
			[]slurm.Record{record(4, 10, 14), record(4, 18, 20), record(4, 24, 30)},
			[]api.Share{share(4, 2, 24), share(4, 0, 10), share(4, 1, 18)},
			[]string{"4@9=4.0", "4@17=4.1", "4@23=4.2"},
		},
		"a start that was never registered does not shift the others": {
			operator,
			[]slurm.Record{record(4, 10, 14), record(4, 40, 50), record(4, 80, 90)},
			[]api.Share{share(4, 1, 40), share(4, 2, 81)},
			[]string{"4@9=none", "4@39=4.1", "4@79=4.2"},
		},
		"a start before --since does not shift the others": {operator, []slurm.Record{record(4, 40, 50)}, []api.Share{share(4, 1, 41)}, []string{"4@39=4.1"}},
		"clocks a second apart":                            {operator, []slurm.Record{record(4, 10, 14)}, []api.Share{share(4, 0, 9)}, []string{"4@9=4.0"}},
		"restart counts decide where accounting has them, an hour of skew or not": {
			operator,
			[]slurm.Record{restarts(record(4, 10, 14), 0), restarts(record(4, 18, 20), 1)},
			[]api.Share{share(4, 0, 3600), share(4, 1, 3608)},
			[]string{"4@9=4.0", "4@17=4.1"},
		},
		"a number that came again for another user": {operator, []slurm.Record{other}, []api.Share{share(4, 0, 10)}, []string{"4@9=none", "-=4.0"}},
		"a number that came again a year later":     {operator, []slurm.Record{restarts(record(4, 10, 20), 0)}, []api.Share{share(4, 0, 365*86400)}, []string{"4@9=none", "-=4.0"}},
		"a job that waits and one that runs":        {operator, []slurm.Record{waiting, running}, []api.Share{share(7, 0, 61)}, []string{"6@39=none", "7@59=7.0"}},
		"a start that accounting has lost":          {operator, nil, []api.Share{share(9, 0, 5)}, []string{"-=9.0"}},
		"one entry is never two starts'":            {operator, []slurm.Record{record(4, 10, 20), record(4, 10, 20)}, []api.Share{share(4, 0, 10)}, []string{"4@9=4.0", "4@9=none"}},
		"a user sees no other user's":               {api.Me{UID: 2001}, []slurm.Record{record(1, 10, 20), other}, []api.Share{share(1, 0, 10)}, []string{"1@9=1.0"}},
		"a coordinator sees the account's":          {api.Me{UID: 7, Accounts: []string{"digimed"}}, []slurm.Record{record(1, 10, 20)}, []api.Share{share(1, 0, 10)}, []string{"1@9=1.0"}},
		"a coordinator sees no other account's":     {api.Me{UID: 7, Accounts: []string{"astro", ""}}, []slurm.Record{record(1, 10, 20)}, nil, []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, c.want, text(acct.Join(c.me, c.records, c.shares, all)))
		})
	}
	t.Run("what the filter keeps out is no line of its own", func(t *testing.T) {
		t.Parallel()
		got := acct.Join(operator, []slurm.Record{record(1, 10, 20)}, []api.Share{share(1, 0, 10), share(9, 0, 5)}, func(api.Share) bool { return false })
		assert.Equal(t, []string{"1@9=1.0"}, text(got))
	})
}
