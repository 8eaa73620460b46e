package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/host/machine"
)

// SoakOptions say how long Soak goes on.
type SoakOptions struct {
	Jobs     int    // in cpu-sev, in all
	Together int    // of a burst; bursts are the last two fifths of the jobs
	Seed     uint64 // of what is random: sizes, and who is cancelled when
}

const (
	soakPairs    = 10              // jobs in each partition whose start is measured
	soakPatience = 5 * time.Minute // for the queue to empty, and for receipts
)

// soak is what a run has seen so far.
type soak struct {
	State
	SoakOptions
	random    *rand.Rand
	out       io.Writer
	since     time.Time
	cancelled map[string]bool // by job number
	submitted []string
}

// ErrSoak says that a run has left something, or lost something.
var ErrSoak = errors.New("soak: a job was lost, a node drained, or something was left")

// Soak runs many small jobs in cpu-sev, most of them one after the other and the rest in bursts of which
// half are cancelled at a random time, and looks at what that has left: drained nodes, traces on
// nodes, starts without a receipt. The last line it prints is the sum.
func Soak(ctx context.Context, o SoakOptions, out io.Writer) error {
	s, err := Load()
	if err != nil {
		return err
	}
	if o.Jobs < 1 || o.Together < 1 {
		return errors.New("soak: want at least one job, and one at a time")
	}
	k := &soak{
		State: s, SoakOptions: o, out: out, since: time.Now().Add(-time.Second), cancelled: map[string]bool{},
		random: rand.New(rand.NewPCG(o.Seed, 0)), //nolint:gosec // a run that can be repeated
	}
	bursts := o.Jobs * 2 / 5 / o.Together
	for range o.Jobs - bursts*o.Together {
		if err = k.one(ctx); err != nil {
			return err
		}
	}
	for range bursts {
		if err = k.burst(ctx); err != nil {
			return err
		}
	}
	added, err := k.added(ctx)
	if err != nil {
		return err
	}
	return k.sum(ctx, added)
}

func (k *soak) submit(ctx context.Context, options ...string) (string, error) {
	argv := append([]string{
		"sbatch", "--parsable", "--partition=cpu-sev", fmt.Sprintf("--nodes=%d", 1+k.random.IntN(k.Spec.Nodes)), "--ntasks-per-node=1",
		"--output=/dev/null", "--wrap", "srun true",
	}, options...)
	id, err := k.capture(ctx, argv...)
	if err != nil {
		return "", err
	}
	id, _, _ = strings.Cut(strings.TrimSpace(id), ";")
	k.submitted = append(k.submitted, id)
	return id, nil
}

func (k *soak) one(ctx context.Context) error {
	_, err := k.submit(ctx, "--wait")
	return err
}

// burst submits jobs at once and cancels half of them in random order, over about as long as the
// first of them take: in the queue, in the prolog, while they run, in the epilog.
func (k *soak) burst(ctx context.Context) error {
	var ids []string
	for range k.Together {
		id, err := k.submit(ctx)
		if err != nil {
			return err
		}
		ids = append(ids, id)
	}
	k.random.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	for _, id := range ids[:len(ids)/2] {
		if err := pause(ctx, time.Duration(k.random.IntN(800))*time.Millisecond); err != nil {
			return err
		}
		if _, err := k.capture(ctx, "scancel", id); err != nil {
			return err
		}
		k.cancelled[id] = true
	}
	return k.emptied(ctx)
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// patiently asks every half second until yes.
func patiently(ctx context.Context, what string, yes func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, soakPatience)
	defer cancel()
	for {
		ok, err := yes()
		if err != nil || ok {
			return err
		}
		if err := pause(ctx, time.Second/2); err != nil {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
	}
}

func (k *soak) emptied(ctx context.Context) error {
	return patiently(ctx, "the queue to empty", func() (bool, error) {
		left, err := k.capture(ctx, "squeue", "-h", "-p", "cpu-sev")
		return strings.TrimSpace(left) == "", err
	})
}

// added is how many milliseconds an enclave adds to a job's start: medians, measured in turn.
func (k *soak) added(ctx context.Context) (float64, error) {
	took := map[string][]float64{}
	for range min(soakPairs, k.Jobs) {
		for _, partition := range []string{"cpu", "cpu-sev"} {
			m, err := k.measure(ctx, partition, 1)
			if err != nil {
				return 0, fmt.Errorf("measure %s: %w", partition, err)
			}
			took[partition] = append(took[partition], float64(m.took.Microseconds())/1000)
		}
	}
	middle := func(ms []float64) float64 {
		slices.Sort(ms)
		return ms[len(ms)/2]
	}
	return middle(took["cpu-sev"]) - middle(took["cpu"]), nil
}

// start is a line of `enclave acct --json`.
type start struct {
	Job     uint32  `json:"job"`
	State   *string `json:"state"`
	Verdict string  `json:"verdict"`
	Code    *string `json:"code"`
	Receipt *string `json:"receipt"`
}

// starts are all starts of this run.
func (k *soak) starts(ctx context.Context) ([]start, error) {
	text, err := k.capture(ctx, "enclave", "acct", "--json", "--partition", "cpu-sev", "--since", k.since.UTC().Format(time.RFC3339))
	if err != nil {
		return nil, err
	}
	var list struct {
		Jobs []start `json:"jobs"`
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, fmt.Errorf("read enclave acct: %w", err)
	}
	// The jobs that were measured are none of the soak's.
	return slices.DeleteFunc(list.Jobs, func(j start) bool { return !slices.Contains(k.submitted, fmt.Sprint(j.Job)) }), nil
}

// sealed waits for the receipts of all that the ledger has. A start of which it has nothing, verdict none,
// was cancelled before it began.
func (k *soak) sealed(ctx context.Context) (receipts, missing int, all []start, err error) {
	err = patiently(ctx, "receipts", func() (bool, error) {
		var bad error
		all, bad = k.starts(ctx)
		receipts, missing = 0, 0
		for _, j := range all {
			switch {
			case j.Receipt != nil:
				receipts++
			case j.Verdict != "none":
				missing++
			}
		}
		return missing == 0, bad
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		err = nil // missing says it
	}
	return receipts, missing, all, err
}

func (k *soak) sum(ctx context.Context, added float64) error {
	receipts, missing, all, err := k.sealed(ctx)
	if err != nil {
		return err
	}
	states, lost := map[string]int{}, 0
	for _, j := range all {
		state := "UNKNOWN"
		if j.State != nil {
			state, _, _ = strings.Cut(*j.State, " ")
		}
		states[state]++
		if state != "COMPLETED" && !k.cancelled[fmt.Sprint(j.Job)] {
			lost++
			_, _ = fmt.Fprintf(k.out, "job %d was not cancelled, and is %s\n", j.Job, state)
		}
	}
	drained, err := k.capture(ctx, "sinfo", "-h", "-N", "-p", "cpu-sev", "-t", "drain,drained,draining,down", "-o", "%N %E")
	if err != nil {
		return err
	}
	left, err := k.leftovers(ctx)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(k.out, "%s%sstarts: %v, cancelled by us %d, without receipt %d\n", drained, strings.Join(left, ""), states, len(k.cancelled), missing)
	bad := len(strings.Split(drained, "\n")) - 1
	_, _ = fmt.Fprintf(k.out, "soak: jobs=%d drained=%d leftovers=%d receipts=%d added_ms_p50=%.0f\n", len(k.submitted), bad, len(left), receipts, added)
	if bad+len(left)+missing+lost > 0 {
		return ErrSoak
	}
	return nil
}

// leftovers asks each enclave node to compare itself with its closed state, one line for each difference.
func (k *soak) leftovers(ctx context.Context) ([]string, error) {
	var left []string
	for _, h := range k.Hosts {
		if h.Role != RoleEnclave {
			continue
		}
		cmd, err := k.Command(h.Name, "root", []string{"enclave", "host", "check"})
		if err != nil {
			return nil, err
		}
		var out, errOut strings.Builder
		status, err := machine.Run(ctx, cmd, environment(), nil, &out, &errOut)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(out.String()) {
			if !strings.HasPrefix(line, "pass") {
				left = append(left, h.Name+": "+line)
			}
		}
		if status != 0 && len(left) == 0 {
			left = append(left, fmt.Sprintf("%s: enclave host check: status %d: %s\n", h.Name, status, errOut.String()))
		}
	}
	return left, nil
}
