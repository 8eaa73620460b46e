package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/host/machine"
)

// measurement is one run: how long it took from sbatch to the last rank's first line, and what the
// prologs say of it.
type measurement struct {
	took   time.Duration
	job    string
	phases map[string]float64 // milliseconds
}

// Bench submits the same small job to cpu and to cpu-sev in turn, repeat times each, and prints
// medians. All nodes of the smaller partition are used.
func Bench(ctx context.Context, repeat int, out io.Writer) error {
	s, err := Load()
	if err != nil {
		return err
	}
	nodes := min(s.Spec.Nodes, s.Spec.Plain)
	runs := map[string][]measurement{}
	for range repeat {
		for _, partition := range []string{"cpu", "cpu-sev"} {
			m, failure := s.measure(ctx, partition, nodes)
			if failure != nil {
				return fmt.Errorf("measure %s: %w", partition, failure)
			}
			runs[partition] = append(runs[partition], m)
		}
	}
	if err = table(out, nodes, runs); err != nil {
		return err
	}
	return s.teardowns(ctx, runs["cpu-sev"], out)
}

// teardowns prints how long the nodes' epilogs took, as they reported it: each node of each job
// counts. A node that did not say that it is closed is an error.
func (s State) teardowns(ctx context.Context, runs []measurement, out io.Writer) error {
	phases := map[string][]float64{}
	for _, m := range runs {
		nodes, err := s.closed(ctx, m.job)
		if err != nil {
			return fmt.Errorf("teardown of job %s: %w", m.job, err)
		}
		for _, n := range nodes {
			for name, ms := range n {
				phases[name] = append(phases[name], ms)
			}
		}
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "teardown of a node, absence read back\tn\tmin ms\tp50 ms\tmax ms")
	for _, name := range slices.Sorted(maps.Keys(phases)) {
		if ms := phases[name]; name == "teardown" || strings.HasSuffix(name, "_down") {
			slices.Sort(ms)
			_, _ = fmt.Fprintf(w, "  %s\t%d\t%.0f\t%.0f\t%.0f\n", name, len(ms), ms[0], ms[len(ms)/2], ms[len(ms)-1])
		}
	}
	return w.Flush()
}

// closed waits for the nodes' reports of a job's teardown and returns their phases.
func (s State) closed(ctx context.Context, job string) ([]map[string]float64, error) {
	var nodes []map[string]float64
	err := wait(ctx, "the teardown's reports", func() (bool, error) {
		doc, failure := s.capture(ctx, "enclave", "report", job, "--json")
		if failure != nil {
			return false, failure
		}
		var report struct {
			Nodes []struct {
				Closed   *bool              `json:"closed"`
				Timeline map[string]float64 `json:"timeline_ms"`
			} `json:"nodes"`
		}
		if failure = json.Unmarshal([]byte(doc), &report); failure != nil {
			return false, failure
		}
		nodes = nil
		for _, n := range report.Nodes {
			if n.Closed == nil {
				return false, nil
			}
			if !*n.Closed {
				return false, errors.New("a node was not closed")
			}
			nodes = append(nodes, n.Timeline)
		}
		return true, nil
	})
	return nodes, err
}

func (s State) measure(ctx context.Context, partition string, nodes int) (measurement, error) {
	cmd, err := s.Command("login", "alice", []string{
		"sbatch", "--parsable", "--wait", "--partition=" + partition, fmt.Sprintf("--nodes=%d", nodes),
		"--exclusive", "--ntasks-per-node=1", "--output=/home/alice/bench.out",
	})
	if err != nil {
		return measurement{}, err
	}
	var id, errOut strings.Builder
	start := time.Now()
	status, err := machine.Run(ctx, cmd, environment(), strings.NewReader("#!/bin/sh\nsrun date +%s%N\n"), &id, &errOut)
	if err != nil || status != 0 {
		return measurement{}, fmt.Errorf("sbatch: status %d: %s: %w", status, errOut.String(), err)
	}
	lines, err := s.capture(ctx, "cat", "/home/alice/bench.out")
	if err != nil {
		return measurement{}, err
	}
	last, err := latest(lines, nodes)
	if err != nil {
		return measurement{}, err
	}
	m := measurement{took: last.Sub(start), job: strings.TrimSpace(id.String())}
	if partition == "cpu" {
		return m, nil
	}
	doc, err := s.capture(ctx, "enclave", "report", m.job, "--json")
	if err != nil {
		return m, err
	}
	var report struct {
		Timeline map[string]float64 `json:"timeline_ms"`
	}
	err = json.Unmarshal([]byte(doc), &report)
	m.phases = report.Timeline
	return m, err
}

// capture runs a program as alice on the login host and returns what it prints.
func (s State) capture(ctx context.Context, argv ...string) (string, error) {
	cmd, err := s.Command("login", "alice", argv)
	if err != nil {
		return "", err
	}
	var out, errOut strings.Builder
	status, err := machine.Run(ctx, cmd, environment(), nil, &out, &errOut)
	if err == nil && status != 0 {
		err = fmt.Errorf("%s: status %d: %s", argv[0], status, errOut.String())
	}
	return out.String(), err
}

// latest reads one time in nanoseconds a line and returns the last of want ranks.
func latest(lines string, want int) (time.Time, error) {
	var last int64
	fields := strings.Fields(lines)
	if len(fields) != want {
		return time.Time{}, fmt.Errorf("read times: %d ranks answered, want %d: %q", len(fields), want, lines)
	}
	for _, f := range fields {
		ns, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return time.Time{}, fmt.Errorf("read times: %w", err)
		}
		last = max(last, ns)
	}
	return time.Unix(0, last), nil
}

func table(out io.Writer, nodes int, runs map[string][]measurement) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(w, "sbatch to last rank's start, %d nodes\tn\tmin ms\tp50 ms\tmax ms\n", nodes)
	p50 := map[string]float64{}
	for _, partition := range []string{"cpu", "cpu-sev"} {
		var ms []float64
		for _, m := range runs[partition] {
			ms = append(ms, float64(m.took.Microseconds())/1000)
		}
		slices.Sort(ms)
		p50[partition] = ms[len(ms)/2]
		_, _ = fmt.Fprintf(w, "%s\t%d\t%.0f\t%.0f\t%.0f\n", partition, len(ms), ms[0], p50[partition], ms[len(ms)-1])
	}
	_, _ = fmt.Fprintf(w, "cpu-sev adds\t\t\t%.0f\t\n", p50["cpu-sev"]-p50["cpu"])
	_, _ = fmt.Fprintln(w, "phase of the prolog (slowest node), cpu-sev\t\t\t\t")
	for _, phase := range phases(runs["cpu-sev"]) {
		var ms []float64
		for _, m := range runs["cpu-sev"] {
			if v, ok := m.phases[phase]; ok {
				ms = append(ms, v)
			}
		}
		slices.Sort(ms)
		_, _ = fmt.Fprintf(w, "  %s\t%d\t%.0f\t%.0f\t%.0f\n", phase, len(ms), ms[0], ms[len(ms)/2], ms[len(ms)-1])
	}
	return w.Flush()
}

func phases(runs []measurement) []string {
	var names []string
	for _, m := range runs {
		for name := range m.phases {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names
}
