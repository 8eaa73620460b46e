package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Shell runs a program to its end with an input, as one user on one host, and returns what it
// prints. The error says what it printed on standard error.
type Shell interface {
	Run(ctx context.Context, input string, argv ...string) (string, error)
}

// Bench is one measurement. Slurm is the submit host's shell, as the user whose jobs they are.
type Bench struct {
	Slurm      Shell
	Directory  string   // that the nodes see, too: program and output are there
	Partitions []string // each is one row
	Repeat     int      // runs of each row
	Seconds    int      // of a run's TCP stream
	Source     string   // of the MPI program
	Program    string   // in place of Source: one that is compiled already
	Crowded    bool     // more programs than processors: ranks let others run when they wait
	Tunnel     netip.Prefix
	Step       func(name string, repetition int)                      // told before each run; may be nil
	Keep       func(name string, repetition int, output string) error // given each run's output; may be nil

	program string
	notes   []string
}

// target is what becomes a row.
type target struct {
	partition string
	route     route
	name      string // of a baseline; else the nodes tell
}

// limit is how long one run may take, waiting for nodes included.
const limit = 20 * time.Minute

// Net measures. Runs of all rows alternate, in turning order, so that nothing that comes and goes
// is taken for a row's own.
func (b *Bench) Net(ctx context.Context) (Result, error) {
	targets, err := b.targets(ctx)
	if err != nil {
		return Result{}, err
	}
	if err = b.compile(ctx); err != nil {
		return Result{}, err
	}
	defer b.tidy(context.WithoutCancel(ctx))
	rows := make([]Row, len(targets))
	for i := range b.Repeat {
		order := make([]int, len(targets))
		for j := range order {
			order[j] = j
		}
		if i%2 == 1 {
			slices.Reverse(order)
		}
		for _, j := range order {
			if err := b.measure(ctx, targets[j], i, &rows[j], rows[0].Nodes); err != nil {
				return Result{}, err
			}
		}
	}
	return conclude(rows, b.notes), nil
}

// targets are the partitions that are there, and the baseline on the nodes of the first one.
func (b *Bench) targets(ctx context.Context) ([]target, error) {
	out, err := b.Slurm.Run(ctx, "", "sinfo", "--noheader", "--format=%R")
	if err != nil {
		return nil, fmt.Errorf("list partitions: %w", err)
	}
	there := strings.Fields(out)
	var all []target
	for _, p := range b.Partitions {
		if !slices.Contains(there, p) {
			b.notes = append(b.notes, fmt.Sprintf("there is no partition %s", p))
			continue
		}
		t := target{partition: p}
		if b.Tunnel.IsValid() {
			t.route.without = []netip.Prefix{b.Tunnel}
		}
		all = append(all, t)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("find partitions %s: there are %s", strings.Join(b.Partitions, ", "), strings.Join(there, ", "))
	}
	if b.Tunnel.IsValid() {
		all = append(all, target{partition: all[0].partition, route: route{network: b.Tunnel}, name: OpenVPN})
	}
	return all, nil
}

// compile makes the MPI program where the nodes see it. Without a compiler there are no figures
// of MPI, and a note says so.
func (b *Bench) compile(ctx context.Context) error {
	b.program = b.Program
	if b.program != "" {
		return nil
	}
	if !has(ctx, b.Slurm, "mpicc") {
		b.notes = append(b.notes, "mpicc is not here: no figures of MPI. Package libopenmpi-dev, or the site's module, or --program")
		return nil
	}
	path := filepath.Join(b.Directory, fmt.Sprintf(".enclave-netbench.%d", time.Now().UnixNano()))
	if _, err := b.Slurm.Run(ctx, b.Source, "mpicc", "-O2", "-x", "c", "-o", path, "-"); err != nil {
		return fmt.Errorf("compile the MPI program: %w", err)
	}
	b.program = path
	return nil
}

// has says whether a program is in that shell's PATH.
func has(ctx context.Context, s Shell, program string) bool {
	_, err := s.Run(ctx, "", "sh", "-c", "command -v "+program)
	return err == nil
}

func (b *Bench) tidy(ctx context.Context) {
	if b.program == "" || b.program == b.Program {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, _ = b.Slurm.Run(ctx, "", "rm", "-f", b.program) // a file in the user's own directory
}

func (b *Bench) measure(ctx context.Context, t target, repetition int, row *Row, first []string) error {
	name := t.name
	if name == "" {
		name = t.partition
	}
	if b.Step != nil {
		b.Step(name, repetition)
	}
	nodes := row.Nodes
	if t.name != "" {
		nodes = first
	}
	out, err := b.submit(ctx, t, nodes)
	if b.Keep != nil && out != "" {
		err = errors.Join(err, b.Keep(name, repetition, out))
	}
	if err != nil {
		return fmt.Errorf("measure %s: %w", name, err)
	}
	run, err := parseRun(strings.NewReader(out))
	if err != nil {
		return fmt.Errorf("measure %s: %w\n%s", name, err, tail(out))
	}
	if row.Name == "" {
		row.Partition, row.Name = t.partition, t.name
		if row.Name == "" {
			row.Name = nameOf(run)
		}
	}
	return row.add(run)
}

// nameOf tells by the nodes what a partition is.
func nameOf(r Run) string {
	n := r.Nodes[0]
	switch {
	case n.Tunnel == "kernel":
		return Kernel
	case n.Tunnel != "":
		return Userspace
	case n.SEV:
		return Conf
	}
	return Plain
}

// submit runs one job and returns what it printed.
func (b *Bench) submit(ctx context.Context, t target, nodes []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	argv := []string{
		"sbatch", "--parsable", "--wait", "--partition=" + t.partition, "--nodes=2", "--ntasks-per-node=1", "--exclusive",
		"--time=10", "--job-name=enclave-bench", "--chdir=" + b.Directory, "--output=" + filepath.Join(b.Directory, "enclave-bench-%j.out"),
	}
	if len(nodes) > 0 {
		argv = append(argv, "--nodelist="+strings.Join(nodes, ","))
	}
	id, failure := b.Slurm.Run(ctx, b.script(t.route), argv...)
	job, _, _ := strings.Cut(strings.TrimSpace(id), ";")
	if job == "" {
		return "", fmt.Errorf("submit job: %w", failure)
	}
	if ctx.Err() != nil {
		return "", errors.Join(fmt.Errorf("wait for job %s: %w", job, ctx.Err()), b.cancel(context.WithoutCancel(ctx), job))
	}
	file := filepath.Join(b.Directory, "enclave-bench-"+job+".out")
	out, err := b.Slurm.Run(ctx, "", "cat", file)
	if err != nil {
		return "", errors.Join(fmt.Errorf("read output of job %s: %w", job, err), failure)
	}
	if _, err = b.Slurm.Run(ctx, "", "rm", "-f", file); err != nil {
		return "", err
	}
	// A job that failed has said why in its output, which is judged next.
	return out, nil
}

// cancel takes back a job that nobody waits for any more.
func (b *Bench) cancel(ctx context.Context, job string) error {
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	_, err := b.Slurm.Run(ctx, "", "scancel", job)
	return err
}

// tail is the end of an output, for an error.
func tail(s string) string {
	const most = 600
	return s[max(0, len(s)-most):]
}
