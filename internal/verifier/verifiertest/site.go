// Package verifiertest holds what the verifier's neighbours need in tests: a Slurm that keeps
// its state and prints it, an appraiser that believes what the evidence says of itself, and
// nodes that speak the protocol.
package verifiertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Site is a Slurm with a state. The zero value has no jobs, and all nodes are in service.
type Site struct {
	mu       sync.Mutex
	jobs     map[uint32]enclave.JobState
	drained  map[string]string
	verdicts map[string]string
	requeued []string
	ended    []string
	calls    []string
	away     bool
	slow     time.Duration
}

// Submit puts a running batch job there.
func (s *Site) Submit(job uint32) {
	s.SetJob(job, enclave.JobState{Alive: true, State: "RUNNING", Batch: true, AllocNode: "login1"})
}

// Restart makes the job's latest start this one, and leaves it as it is.
func (s *Site) Restart(key enclave.JobKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if j, ok := s.jobs[key.Job]; ok {
		j.Restart = key.Restart
		s.jobs[key.Job] = j
	}
}

// SetJob sets what Slurm says of a job.
func (s *Site) SetJob(job uint32, state enclave.JobState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.jobs == nil {
		s.jobs = map[uint32]enclave.JobState{}
	}
	s.jobs[job] = state
}

// SetAway lets every call fail, or not any more.
func (s *Site) SetAway(away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = away
}

// SetSlow lets the next answer about a job come so late, whatever the caller's patience: the process
// stood still.
func (s *Site) SetSlow(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slow = d
}

func (s *Site) call(format string, args ...any) error {
	s.calls = append(s.calls, fmt.Sprintf(format, args...))
	if s.away {
		return errors.New("slurm is away")
	}
	return nil
}

// JobState says what SetJob said; of other jobs, nothing.
func (s *Site) JobState(_ context.Context, job uint32) (enclave.JobState, error) {
	s.mu.Lock()
	slow := s.slow
	s.slow = 0
	s.mu.Unlock()
	<-time.After(slow)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return enclave.JobState{}, errors.New("slurm is away")
	}
	return s.jobs[job], nil
}

// Drain keeps the first reason, as Slurm and site do.
func (s *Site) Drain(_ context.Context, node, reason string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.call("drain %s", node); err != nil {
		return err
	}
	if s.drained == nil {
		s.drained = map[string]string{}
	}
	if s.drained[node] == "" {
		s.drained[node] = reason
	}
	return nil
}

// Resume takes back what has this reason.
func (s *Site) Resume(_ context.Context, node, prefix string, _ time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.call("resume %s", node); err != nil {
		return err
	}
	if strings.HasPrefix(s.drained[node], prefix) {
		delete(s.drained, node)
	}
	return nil
}

// Requeue notes it.
func (s *Site) Requeue(_ context.Context, key enclave.JobKey, _ string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.call("requeue %s", key.Directory()); err != nil {
		return err
	}
	s.requeued = append(s.requeued, key.Directory())
	return nil
}

// End notes it; the job is over then.
func (s *Site) End(_ context.Context, key enclave.JobKey, _ string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.call("end %s", key.Directory()); err != nil {
		return err
	}
	s.ended = append(s.ended, key.Directory())
	if j, ok := s.jobs[key.Job]; ok {
		j.Alive, j.State = false, "CANCELLED"
		s.jobs[key.Job] = j
	}
	return nil
}

// RecordVerdict notes it.
func (s *Site) RecordVerdict(_ context.Context, key enclave.JobKey, comment []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.call("record %s", key.Directory()); err != nil {
		return err
	}
	if s.verdicts == nil {
		s.verdicts = map[string]string{}
	}
	s.verdicts[key.Directory()] = string(comment)
	return nil
}

// Calls are all calls that change something, in order.
func (s *Site) Calls() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// String is the state: drained nodes with their reasons, and jobs that were requeued or ended.
func (s *Site) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for _, n := range slices.Sorted(maps.Keys(s.drained)) {
		fmt.Fprintf(&b, "%s drained %s\n", n, s.drained[n])
	}
	for _, k := range s.requeued {
		fmt.Fprintf(&b, "%s requeued\n", k)
	}
	for _, k := range s.ended {
		fmt.Fprintf(&b, "%s ended\n", k)
	}
	return b.String()
}

// Drained are the names of the nodes that are out of service.
func (s *Site) Drained() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.drained))
}

// Verdict is the comment of a start.
func (s *Site) Verdict(key enclave.JobKey) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.verdicts[key.Directory()]
}
