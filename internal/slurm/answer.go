package slurm

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/job"
)

// Every answer of slurmrestd's, whatever its version, is an object with these keys and one more that
// holds what was asked for. Keys that are not known are passed over: versions add some all the time.
type answer struct {
	Errors []fault            `json:"errors"`
	Jobs   *[]json.RawMessage `json:"jobs"` // slurmctld's and slurmdbd's have the same keys with other values
	Nodes  *[]nodeAnswer      `json:"nodes"`

	Status  []outcome `json:"status"`  // of a requeue or a cancel, for each job
	Results []outcome `json:"results"` // of an update
}

// fault is one error in an answer. They come with HTTP status 200, too [tried on 22.05].
type fault struct {
	Number      *number `json:"error_number"`
	Errno       *number `json:"errno"` // what 22.05 calls it when a node is not there
	Error       string  `json:"error"`
	Description string  `json:"description"`
}

// jobAnswer is a job as slurmctld tells it.
type jobAnswer struct {
	ID           *number   `json:"job_id"`
	State        words     `json:"job_state"`
	Restarts     *number   `json:"restart_cnt"`
	Requeue      *flag     `json:"requeue"`
	Batch        *flag     `json:"batch_flag"`
	UID          *number   `json:"user_id"`
	TimeLimit    *number   `json:"time_limit"` // minutes
	Partition    *string   `json:"partition"`
	Account      string    `json:"account"`
	Nodes        string    `json:"nodes"`
	ExitCode     *exitCode `json:"exit_code"`
	AllocNode    string    `json:"allocating_node"`
	AdminComment string    `json:"admin_comment"`
	ArrayJob     *number   `json:"array_job_id"` // 0, or not set, of a job of its own
}

// storedAnswer is a start of a job as slurmdbd tells it.
type storedAnswer struct {
	ID    *number `json:"job_id"`
	Array struct {
		Job *number `json:"job_id"` // 0 of a job of its own
	} `json:"array"`
	Comment struct {
		Administrator string `json:"administrator"`
	} `json:"comment"`
	Time struct {
		Submission *number `json:"submission"`
	} `json:"time"`
}

type nodeAnswer struct {
	Name   string `json:"name"`
	State  words  `json:"state"`
	Flags  words  `json:"state_flags"` // until v0.0.38
	Reason string `json:"reason"`
}

// parseAnswer refuses what is no answer at all; what the server calls an error is one here.
func parseAnswer(b []byte) (answer, error) {
	var a answer
	if err := json.Unmarshal(b, &a); err != nil {
		return answer{}, fmt.Errorf("read the answer: %w", err)
	}
	return a, errors.Join(a.fault(), a.refused())
}

// fault is the first error of the answer that has a name, or all of them without one.
func (a answer) fault() error {
	var texts []string
	for _, f := range a.Errors {
		text := f.Error
		if f.Description != "" && f.Description != f.Error {
			text = strings.TrimPrefix(text+": "+f.Description, ": ")
		}
		n := f.Number
		if n == nil {
			n = f.Errno
		}
		if n != nil {
			text = fmt.Sprintf("%s (%d)", text, n.Value)
			if named := errorOf(n.Value); named != nil {
				return fmt.Errorf("%w: slurmrestd: %s", named, job.Printable(text, maxReason))
			}
		}
		texts = append(texts, text)
	}
	if len(texts) == 0 {
		return nil
	}
	return fmt.Errorf("slurmrestd: %s", job.Printable(strings.Join(texts, "; "), maxReason))
}

// without is true when all that is wrong is that nothing was found: since 24.11 that is an error, with the errno of a
// question to slurmctld that went well, and without a list.
func (a answer) without() bool {
	return len(a.Errors) > 0 && !slices.ContainsFunc(a.Errors, func(f fault) bool { return f.Number == nil || !f.Number.Set || f.Number.Value != 0 })
}

// refused looks at what became of each job of a list.
func (a answer) refused() error {
	for _, o := range slices.Concat(a.Status, a.Results) {
		if o.Code == 0 {
			continue
		}
		if named := errorOf(o.Code); named != nil {
			return fmt.Errorf("%w: slurmrestd: %s (%d)", named, job.Printable(o.Text, maxReason), o.Code)
		}
		return fmt.Errorf("slurmrestd: %s (%d)", job.Printable(o.Text, maxReason), o.Code)
	}
	return nil
}

// errorOf names the numbers of slurm_errno.h that callers branch on. A number that is not known stays
// an error without a name, which nobody takes for a no.
func errorOf(n uint64) error {
	switch n {
	case 2017: // ESLURM_INVALID_JOB_ID
		return ErrNoJob
	case 2018: // ESLURM_INVALID_NODE_NAME
		return ErrNoNode
	case 2021, 2084: // ESLURM_ALREADY_DONE, ESLURM_JOB_FINISHED
		return ErrFinished
	case 2039: // ESLURM_BATCH_ONLY
		return ErrInteractive
	case 1900, 9003: // SLURM_NO_CHANGE_IN_DATA, ESLURM_REST_EMPTY_RESULT
		return errEmpty
	}
	return nil
}

// errEmpty is slurmdbd's way to say that there is nothing.
var errEmpty = errors.New("nothing found")

// job picks the one job with this number. Elements of an array share an answer.
func (a answer) job(id uint32) (jobAnswer, error) {
	if a.Jobs == nil {
		return jobAnswer{}, errors.New("slurmrestd answered without a list of jobs")
	}
	var found []jobAnswer
	for _, raw := range *a.Jobs {
		var j jobAnswer
		if err := json.Unmarshal(raw, &j); err != nil {
			return jobAnswer{}, fmt.Errorf("read the answer: %w", err)
		}
		if j.ID != nil && j.ID.Set && j.ID.Value == uint64(id) {
			found = append(found, j)
		}
	}
	switch len(found) {
	case 0:
		return jobAnswer{}, ErrNoJob
	case 1:
		return found[0], nil
	}
	return jobAnswer{}, fmt.Errorf("slurmrestd told of it %d times", len(found))
}

// latest picks the last start of the job: accounting has a record for each.
func (a answer) latest(id uint32) (storedAnswer, error) {
	if a.Jobs == nil {
		return storedAnswer{}, errors.New("slurmrestd answered without a list of jobs")
	}
	var best *storedAnswer
	for _, raw := range *a.Jobs {
		var j storedAnswer
		if err := json.Unmarshal(raw, &j); err != nil {
			return storedAnswer{}, fmt.Errorf("read the answer: %w", err)
		}
		if j.ID == nil || j.ID.Value != uint64(id) || j.Time.Submission == nil {
			continue
		}
		if best == nil || j.Time.Submission.Value >= best.Time.Submission.Value {
			best = &j
		}
	}
	if best == nil {
		return storedAnswer{}, ErrNoJob
	}
	return *best, nil
}

// value makes a Job of it; what every job has must be there.
func (j jobAnswer) value() (Job, error) {
	u32 := func(n *number) uint32 {
		if n == nil || n.Value > math.MaxUint32 {
			return 0
		}
		return uint32(n.Value)
	}
	for name, n := range map[string]*number{"job_id": j.ID, "restart_cnt": j.Restarts, "user_id": j.UID} {
		if n == nil || !n.Set || n.Value > math.MaxUint32 {
			return Job{}, fmt.Errorf("slurmrestd told no %s", name)
		}
	}
	if len(j.State) == 0 || j.Requeue == nil || j.Batch == nil || j.Partition == nil || j.ExitCode == nil || j.TimeLimit == nil {
		return Job{}, errors.New("slurmrestd left out the state, requeue, batch_flag, partition, exit_code or time_limit")
	}
	out := Job{
		ID: u32(j.ID), State: stateOf(j.State), Restarts: u32(j.Restarts), Requeue: bool(*j.Requeue), Batch: bool(*j.Batch),
		UID: u32(j.UID), TimeLimit: time.Duration(min(j.TimeLimit.Value, maxMinutes)) * time.Minute, Partition: *j.Partition, Account: null(j.Account),
		Nodes: null(j.Nodes), ExitCode: uint32(*j.ExitCode),
	}
	if job.CheckNodeName(j.AllocNode) == nil {
		out.AllocNode = j.AllocNode
	}
	return out, nil
}

// maxMinutes is a year; time.Duration holds 292 of them.
const maxMinutes = 366 * 24 * 60

// stateOf is the one word that squeue prints of a state with flags: the first of them that it looks for,
// in its order, else the state itself.
func stateOf(w words) string {
	for _, f := range []string{
		"COMPLETING", "STAGE_OUT", "CONFIGURING", "RESIZING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "STOPPED",
		"REVOKED", "RESV_DEL_HOLD", "SIGNALING",
	} {
		if slices.Contains(w, f) {
			return f
		}
	}
	return strings.ToUpper(w[0])
}

// node picks the one node with this name.
func (a answer) node(name string) (Node, error) {
	if a.Nodes == nil {
		return Node{}, errors.New("slurmrestd answered without a list of nodes")
	}
	for _, n := range *a.Nodes {
		if n.Name != name {
			continue
		}
		if len(n.State) == 0 {
			return Node{}, errors.New("slurmrestd told no state")
		}
		out := Node{Name: name, Reason: n.Reason}
		for _, s := range slices.Concat(n.State, n.Flags) {
			out.State = append(out.State, strings.ToLower(s))
		}
		return out, nil
	}
	return Node{}, ErrNoNode
}
