package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/slurm-enclave/slurm-enclave/internal/host/machine"
)

// harmed are the figures of srun and slurmstepd that are compared, in the order of the table.
var harmed = []string{
	"srun true, from its start to its end, ms", "srun, system calls", "srun, peak memory, kB", "srun, private memory, kB",
	"slurmstepd, system calls", "slurmstepd, peak memory, kB", "slurmstepd, private memory, kB",
}

// hook is a program of ours that Slurm runs for every job.
type hook struct{ host, path string }

// hooks are all of them: a job of partition cpu pays for each.
func hooks() []hook {
	return []hook{
		{"n0", "/etc/slurm-enclave/prolog-slurmctld"},
		{"c1", "/usr/libexec/slurm-enclave/enclave-prolog"},
		{"c1", "/usr/libexec/slurm-enclave/enclave-epilog"},
		{"n0", "/etc/slurm-enclave/epilog-slurmctld"},
	}
}

// hookLimit is what one run of prolog or epilog may take on a node without the marker, in ms of CPU.
const hookLimit = 5

// Harm measures what a job outside enclaves pays (P7), and prints it: srun and slurmstepd without and
// with the plugin in plugstack.conf, in turn, and the processor time of prologs and epilogs on a node
// without the marker.
func Harm(ctx context.Context, repeat int, out io.Writer) (err error) {
	s, err := Load()
	if err != nil {
		return err
	}
	if s.Spec.Plain == 0 {
		return errors.New("measure jobs of partition cpu: the lab has no plain node: up --plain 1")
	}
	runs := map[bool]map[string][]float64{false: {}, true: {}}
	for range repeat {
		for _, with := range []bool{false, true} {
			if err = s.harmedRun(ctx, with, runs[with]); err != nil {
				return fmt.Errorf("measure with plugin %t: %w", with, err)
			}
		}
	}
	if err = harmTable(out, runs[false], runs[true]); err != nil {
		return err
	}
	return s.hookTimes(ctx, repeat, out)
}

// as runs a shell script as a user on a host.
func (s State) as(ctx context.Context, host, user, script string) (string, error) {
	cmd, err := s.Command(host, user, []string{"sh", "-ec", script})
	if err != nil {
		return "", err
	}
	var said, errOut strings.Builder
	status, err := machine.Run(ctx, cmd, environment(), nil, &said, &errOut)
	if err == nil && status != 0 {
		err = fmt.Errorf("on %s: status %d: %s", host, status, errOut.String())
	}
	return said.String(), err
}

// withoutPlugin empties plugstack.conf where srun and slurmstepd read it; the function puts it back.
func (s State) withoutPlugin(ctx context.Context) (func() error, error) {
	const conf = "/etc/slurm/plugstack.conf"
	back := func() error {
		var errs []error
		for _, host := range []string{"login", "c1"} {
			_, err := s.as(context.WithoutCancel(ctx), host, "root", "[ ! -e "+conf+".kept ] || mv "+conf+".kept "+conf)
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}
	for _, host := range []string{"login", "c1"} {
		if _, err := s.as(ctx, host, "root", "cp -p "+conf+" "+conf+".kept; echo '# nothing' >"+conf); err != nil {
			return nil, errors.Join(err, back())
		}
	}
	return back, nil
}

const (
	harmSrun = "srun -Q -p cpu -w c1 "
	// One after another: how long, how many system calls, how much memory; the last by a task that waits to be looked at.
	harmClient = `a=$(date +%s%N); ` + harmSrun + `true; b=$(date +%s%N); echo $(((b - a) / 10000))
strace -f -qq -c -o harm.trace ` + harmSrun + `true; awk '$NF == "total" {print $4}' harm.trace; rm -f harm.trace harm.pid; ` + harmSrun + `sh -c 'echo $PPID >harm.new; mv harm.new harm.pid; sleep 2' & srun=$!
until [ -e harm.pid ]; do sleep 0.05; done; sleep 1
` + harmMemory + ` /proc/$srun/status /proc/$srun/smaps_rollup; wait; rm -f harm.pid`
	harmMemory = `awk '/^VmHWM/ {print $2} /^Private/ {p += $2} END {print p}'`
	// slurmd's children, one file for each thread.
	harmTrace = `rm -rf /root/harm; mkdir /root/harm; strace -ff -qq -s 64 -o /root/harm/t -p $(pgrep -o -x slurmd) >/dev/null 2>&1 & echo $! >/root/harm.pid; sleep 1`
	harmRead  = `sleep 0.5; kill $(cat /root/harm.pid); sleep 0.3; cd /root/harm; for f in t.*; do echo "== ${f#t.}"; cat $f; done; cd /; rm -r /root/harm /root/harm.pid`
)

// harmedRun adds one value to each figure.
func (s State) harmedRun(ctx context.Context, with bool, to map[string][]float64) (err error) {
	if !with {
		back, failure := s.withoutPlugin(ctx)
		if failure != nil {
			return failure
		}
		defer func() { err = errors.Join(err, back()) }()
	}
	step := make(chan string, 1)
	go func() { step <- s.stepMemory(ctx) }()
	said, err := s.as(ctx, "login", "carol", harmClient)
	memory := <-step
	if err != nil {
		return err
	}
	client := strings.Fields(said)
	if len(client) != 4 {
		return fmt.Errorf("srun: want 4 figures, got %q", said)
	}
	stepd := strings.Fields(memory)
	if len(stepd) != 2 {
		return fmt.Errorf("slurmstepd: want 2 figures, got %q", memory)
	}
	if _, err = s.as(ctx, "c1", "root", harmTrace); err != nil {
		return err
	}
	if _, err = s.as(ctx, "login", "carol", harmSrun+"true"); err != nil {
		return err
	}
	trace, err := s.as(ctx, "c1", "root", harmRead)
	if err != nil {
		return err
	}
	calls := strconv.Itoa(stepCalls(trace))
	for i, text := range []string{client[0], client[1], client[2], client[3], calls, stepd[0], stepd[1]} {
		v, parseErr := strconv.ParseFloat(text, 64)
		if parseErr != nil {
			return fmt.Errorf("%s: %w", harmed[i], parseErr)
		}
		if i == 0 {
			v /= 100 // from 10 us
		}
		to[harmed[i]] = append(to[harmed[i]], v)
	}
	return nil
}

// stepMemory waits for the task that tells its slurmstepd's number, which root may look into.
func (s State) stepMemory(ctx context.Context) string {
	const look = `cd /home/carol; rm -f harm.pid; for i in $(seq 600); do [ -e harm.pid ] && break; sleep 0.05; done; sleep 1; p=$(cat harm.pid); ` + harmMemory + ` /proc/$p/status /proc/$p/smaps_rollup`
	said, err := s.as(ctx, "c1", "root", look)
	if err != nil {
		return err.Error()
	}
	return said
}

// harmTable prints both sides, medians with the least and the most.
func harmTable(out io.Writer, without, with map[string][]float64) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(w, "a job of cpu: the plugin in plugstack.conf (n=%d)\twithout\twith\tit adds\n", len(with[harmed[0]]))
	for _, name := range harmed {
		a, b := slices.Sorted(slices.Values(without[name])), slices.Sorted(slices.Values(with[name]))
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%+.0f\n", name, spread(a), spread(b), b[len(b)/2]-a[len(a)/2])
	}
	return w.Flush()
}

// spread is the median, and the least and the most, of values in order.
func spread(v []float64) string {
	return fmt.Sprintf("%.0f (%.0f to %.0f)", v[len(v)/2], v[0], v[len(v)-1])
}

// timed is a program in the place of a hook: it runs it and writes down what its processor time was, in us (wait4).
const timed = `#!/usr/bin/perl
my $p = fork // die;
if (!$p) { exec { "PATH.real" } "PATH", @ARGV or exit 127 }
my ($status, $usage) = (pack("i", 0), "\0" x 144);
syscall(61, $p, $status, 0, $usage);
my @t = unpack("q4", $usage);
if (open(my $f, ">>", "/tmp/harm.FILE")) { printf $f "%d\n", ($t[0] + $t[2]) * 1e6 + $t[1] + $t[3] }
my $s = unpack("i", $status);
exit($s & 127 ? 128 + ($s & 127) : $s >> 8);
`

// hookTimes runs jobs with the hooks measured, and prints the times.
func (s State) hookTimes(ctx context.Context, repeat int, out io.Writer) (err error) {
	all := hooks()
	defer func() {
		for _, h := range all {
			_, failure := s.as(context.WithoutCancel(ctx), h.host, "root", "[ ! -e "+h.path+".real ] || mv "+h.path+".real "+h.path)
			err = errors.Join(err, failure)
		}
	}()
	for i, h := range all {
		text := strings.NewReplacer("PATH", h.path, "FILE", strconv.Itoa(i)).Replace(timed)
		_, err = s.as(ctx, h.host, "root", "rm -f /tmp/harm."+strconv.Itoa(i)+"; cp -p "+h.path+" "+h.path+".real; cat >"+h.path+".new <<'END'\n"+text+"END\nchmod 755 "+h.path+".new; mv "+h.path+".new "+h.path)
		if err != nil {
			return err
		}
	}
	for range repeat {
		if _, err = s.as(ctx, "login", "carol", harmSrun+"true"); err != nil {
			return err
		}
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(w, "processor time without the marker, ms (at most %d)\tn\tmin\tp50\tmax\t\n", hookLimit)
	for i, h := range all {
		ms, readErr := s.hookTime(ctx, h, i, repeat)
		if readErr != nil {
			return readErr
		}
		verdict := "met"
		if ms[len(ms)/2] > hookLimit {
			verdict = "missed"
		}
		_, _ = fmt.Fprintf(w, "  %s\t%d\t%.1f\t%.1f\t%.1f\t%s\n", h.path[strings.LastIndex(h.path, "/")+1:], len(ms), ms[0], ms[len(ms)/2], ms[len(ms)-1], verdict)
	}
	return w.Flush()
}

// hookTime waits for the times of all jobs: an epilog runs behind its job.
func (s State) hookTime(ctx context.Context, h hook, number, jobs int) ([]float64, error) {
	var ms []float64
	err := wait(ctx, "the times of "+h.path, func() (bool, error) {
		said, failure := s.as(ctx, h.host, "root", "cat /tmp/harm."+strconv.Itoa(number)+" 2>/dev/null || true")
		if failure != nil {
			return false, failure
		}
		ms = nil
		for f := range strings.FieldsSeq(said) {
			us, failure := strconv.ParseFloat(f, 64)
			if failure != nil {
				return false, failure
			}
			ms = append(ms, us/1000)
		}
		return len(ms) >= jobs, nil
	})
	slices.Sort(ms)
	return ms, err
}
