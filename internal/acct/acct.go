// Package acct joins Slurm's accounting with the ledger: what each start of a job had of its enclave.
//
// It is pure: both sides were asked by whoever shows the outcome, with the caller's own rights. It never
// says "none" of a job whose entry the caller may not see: such jobs are left out.
package acct

import (
	"cmp"
	"slices"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/slurm"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// None is the verdict of a start that the ledger does not know: it ran outside enclaves, or ended before
// it was registered.
const None enclave.Verdict = "none"

// Line is one start of a job. One of the two sides may be missing, never both.
type Line struct {
	Record *slurm.Record // nil: accounting does not know it
	Share  *api.Share    // nil: the ledger does not
}

// Verdict is the ledger's, or None.
func (l Line) Verdict() enclave.Verdict {
	if l.Share == nil {
		return None
	}
	return l.Share.Verdict
}

// sees is true for a job of which the caller may read the ledger.
func sees(me api.Me, uid uint32, account string) bool {
	return me.Operator || me.UID == uid || (account != "" && slices.Contains(me.Accounts, account))
}

// Slack is how far the clocks of slurmctld and enclaved may be apart where starts are told apart by time.
const Slack = 5 * time.Second

// Join gives one line for each start, in the order of submission. shares may hold more than records do: what
// the filter lets through and no record has is a line, too.
func Join(me api.Me, records []slurm.Record, shares []api.Share, filter func(api.Share) bool) []Line {
	starts := map[uint32][]*slurm.Record{} // of each job
	for i := range records {
		if r := &records[i]; sees(me, r.UID, r.Account) {
			starts[r.Job] = append(starts[r.Job], r)
		}
	}
	shareOf := map[*slurm.Record]*api.Share{}
	var alone []Line
	for i := range shares {
		s := &shares[i]
		r := match(*s, starts[s.Job])
		switch old := shareOf[r]; {
		case r != nil && old == nil:
			shareOf[r] = s
		case filter(*s):
			alone = append(alone, Line{Share: s})
		}
	}
	var lines []Line
	for i := range records {
		if r := &records[i]; sees(me, r.UID, r.Account) {
			lines = append(lines, Line{Record: r, Share: shareOf[r]})
		}
	}
	lines = append(lines, alone...)
	slices.SortStableFunc(lines, func(a, b Line) int {
		return cmp.Or(a.at().Compare(b.at()), cmp.Compare(a.job(), b.job()))
	})
	return lines
}

// at is when the start was submitted, or registered where accounting does not know it.
func (l Line) at() time.Time {
	if l.Record != nil {
		return l.Record.Submit
	}
	return l.Share.Registered
}

func (l Line) job() uint32 {
	if l.Record != nil {
		return l.Record.Job
	}
	return l.Share.Job
}

// match finds the start that an entry of the ledger is of: by the restart count where accounting has it, else
// the one that got its nodes nearest to when it was registered, which is before its tasks begin. A number that
// came again for another user's job is no match.
func match(s api.Share, starts []*slurm.Record) *slurm.Record {
	var best *slurm.Record
	for _, r := range starts {
		if r.UID != s.UID || r.Start == nil {
			continue
		}
		if r.Restart != nil {
			if *r.Restart == s.Restart && (r.End == nil || !s.Registered.After(r.End.Add(day))) {
				return r
			}
			continue
		}
		if s.Registered.Before(r.Start.Add(-Slack)) || (r.End != nil && s.Registered.After(r.End.Add(Slack))) {
			continue
		}
		if best == nil || distance(s, r) < distance(s, best) {
			best = r
		}
	}
	return best
}

// day bounds how wrong a clock may be before an entry is taken for another job's with the same number.
const day = 24 * time.Hour

func distance(s api.Share, r *slurm.Record) time.Duration { return s.Registered.Sub(*r.Start).Abs() }
