package site

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/slurm"
)

// comment is the verifier's word on a start.
type comment struct {
	Verdict enclave.Verdict `json:"verdict"`
	Weak    bool            `json:"weak"`
	Nodes   int             `json:"nodes"`
	Restart uint32          `json:"restart"`
	Policy  string          `json:"policy"`
	Code    enclave.Code    `json:"code"`
	Reason  string          `json:"reason"`
}

// RecordVerdict writes the verdict into the job's AdminComment. doc is a JSON object with the keys
// verdict, weak, nodes, restart, policy, code and reason, of which only the first is needed.
//
// It is best called while the job lives, before a refusal is answered: afterwards only sacctmgr
// can write, and that spoils capitals and quotes [tried on 22.05.8], so that a text of others with
// such letters forbids it (E523: the verdict is in the ledger only).
func (s *Site) RecordVerdict(ctx context.Context, k enclave.JobKey, doc []byte) error {
	var c comment
	d := json.NewDecoder(bytes.NewReader(doc))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return fmt.Errorf("record verdict of job %s: %w", k, err)
	}
	a := Accounting{
		Verdict: c.Verdict, Weak: c.Weak, Nodes: c.Nodes, Policy: c.Policy, Code: c.Code, Reason: c.Reason, Restart: k.Restart,
	}
	if _, err := a.Token(); err != nil {
		return fmt.Errorf("record verdict of job %s: %w", k, err)
	}
	return s.try(ctx, kindVerdict, errand{Job: k.Job, Restart: k.Restart, Accounting: &a})
}

var errNotYet = errors.New("the job is completing, its record is not in accounting yet")

// record reads, merges, writes and reads back.
func (s *Site) record(ctx context.Context, e errand) error {
	if e.Accounting == nil {
		return enclave.Refuse(CodeAccounting, enclave.FaultService, "errand without a verdict was dropped")
	}
	token, err := e.Accounting.Token()
	if err != nil {
		return enclave.Refuse(CodeAccounting, enclave.FaultService, "%v", err)
	}
	if err = s.sameStart(ctx, e); err != nil {
		return err
	}
	text, finished, err := s.slurm.AdminComment(ctx, e.Job)
	if err != nil {
		return lost(e, err)
	}
	merged := Merge(text, spell(token, finished))
	if merged == text {
		return nil
	}
	if finished {
		err = s.slurm.SetStoredComment(ctx, e.Job, merged)
	} else {
		err = s.slurm.SetAdminComment(ctx, e.Job, merged)
	}
	if err != nil {
		return lost(e, err)
	}
	back, _, err := s.slurm.AdminComment(ctx, e.Job)
	if err != nil {
		return err
	}
	if back != merged {
		return fmt.Errorf("record verdict of job %d: another text was read back", e.Job)
	}
	return nil
}

// sameStart refuses to write the verdict of one start into the record of the next: Slurm
// addresses only the latest.
func (s *Site) sameStart(ctx context.Context, e errand) error {
	j, err := s.slurm.Job(ctx, e.Job)
	switch {
	case errors.Is(err, slurm.ErrNoJob):
		return nil
	case err != nil:
		return err
	case j.Restarts != e.Restart:
		return enclave.Refuse(CodeAccounting, enclave.FaultService,
			"verdict of job %d, start %d is in the ledger only: start %d has begun", e.Job, e.Restart, j.Restarts)
	case j.State == "COMPLETING":
		return errNotYet
	}
	return nil
}

// lost turns what no second attempt can mend into an answer.
func lost(e errand, err error) error {
	if errors.Is(err, slurm.ErrLossy) || errors.Is(err, slurm.ErrNoJob) {
		return enclave.Refuse(CodeAccounting, enclave.FaultService, "verdict of job %d, start %d is in the ledger only: %v", e.Job, e.Restart, err)
	}
	return err
}
