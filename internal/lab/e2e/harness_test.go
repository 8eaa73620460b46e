//go:build e2e

// Package e2e_test drives a real lab from outside, as its users would.
package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/lab"
)

const labNodes = 3

// programs is where `make build` put everything.
func programs() string { return os.Getenv("ENCLAVE_BIN") }

// suite is the Debian suite whose Slurm the lab runs, "" for this machine's own.
func suite() string { return os.Getenv("ENCLAVE_SUITE") }

// mpiProgram is one that was built against the MPI of the lab's hosts.
func mpiProgram(name string) string { return filepath.Join(programs(), suite(), name) }

// up are the arguments that bring up the suite's lab with so many nodes.
func up(nodes int) []string {
	return []string{"up", "--nodes", strconv.Itoa(nodes), "--plain", "2", "--suite", suite(), "--slurmrestd", "--driver", "cli", "--isolation", isolation}
}

func TestMain(m *testing.M) {
	if mode := os.Getenv(leakAgent); mode != "" {
		os.Exit(runLeakAgent(mode))
	}
	if order := os.Getenv(killAt); order != "" {
		os.Exit(killer(order))
	}
	if what := os.Getenv(escapeIn); what != "" {
		os.Exit(escapeMain(what, os.Args[1:]))
	}
	if os.Getenv(restIn) != "" {
		os.Exit(restMain())
	}
	if kind := os.Getenv(driverIn); kind != "" {
		os.Exit(driverMain(kind, os.Args[1:]))
	}
	os.Exit(runAll(m))
}

func runAll(m *testing.M) int {
	if programs() == "" {
		fmt.Fprintln(os.Stderr, "e2e: ENCLAVE_BIN names no folder of programs; make test sets it")
		return 1
	}
	before := settledTrace()
	if err := labCommand(up(labNodes)...).Run(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: lab up:", err)
		return 1
	}
	code := m.Run()
	if err := labCommand("down").Run(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: lab down:", err)
		return 1
	}
	after := machineTrace()
	for try := 0; after != before && try < 20; try++ { // a process that has been killed is seen until the kernel is through with it
		time.Sleep(100 * time.Millisecond)
		after = machineTrace()
	}
	if after != before {
		fmt.Fprintf(os.Stderr, "e2e: the lab left traces.\ngone:\n%s\nnew:\n%s\n", linesOnlyIn(before, after), linesOnlyIn(after, before))
		return 1
	}
	return code
}

// settledTrace is the machine's trace once it stays the same for a second: tests of other packages
// run programs of ours, too, at the same time.
func settledTrace() string {
	last := machineTrace()
	for range 60 {
		time.Sleep(time.Second)
		now := machineTrace()
		if now == last {
			return now
		}
		last = now
	}
	return last
}

func labCommand(args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(programs(), "enclave-lab"), args...)
	c.Stdout, c.Stderr = os.Stderr, os.Stderr
	return c
}

// machineTrace is all of the machine that a lab could change, as text.
func machineTrace() string {
	b := strings.Builder{}
	for _, argv := range [][]string{
		{"cat", "/proc/self/mountinfo"},
		{"ip", "-o", "link"},
		{"ip", "rule"},
		{"ip", "-6", "rule"},
		{"ip", "route", "show", "table", "all"},
		{"nft", "list", "ruleset"},
		{"ip", "netns"},
		{"ls", "/run"},
		{"find", "/sys/fs/cgroup", "-maxdepth", "3", "-name", "enclave*"},
		{"cat", "/etc/passwd", "/etc/hosts"},
		{"losetup", "-a"},
	} {
		out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
		fmt.Fprintf(&b, "$ %s\n", strings.Join(argv, " "))
		for line := range strings.Lines(string(out)) {
			if !others(line) {
				b.WriteString(line)
			}
		}
		if err != nil {
			fmt.Fprintln(&b, err)
		}
	}
	b.WriteString(processTrace())
	return b.String()
}

// result is what a program said and how it ended.
type result struct {
	out, errOut string
	status      int
}

func (r result) String() string {
	return fmt.Sprintf("status %d\n%s%s", r.status, r.out, r.errOut)
}

// on runs a program on a host of the lab as a user.
func on(t *testing.T, host, user string, argv ...string) result {
	t.Helper()
	return onWithInput(t, host, user, "", argv...)
}

func onWithInput(t *testing.T, host, user, input string, argv ...string) result {
	t.Helper()
	// Cleanups run programs, too, when the test's own context is over.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 3*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, filepath.Join(programs(), "enclave-lab"),
		append([]string{"exec", host, "--user", user, "--"}, argv...)...)
	var out, errOut bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(input), &out, &errOut
	err := c.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return result{out.String(), errOut.String(), exit.ExitCode()}
	}
	require.NoError(t, err)
	return result{out.String(), errOut.String(), 0}
}

// must is on for a program that has to succeed; it returns its standard output.
func must(t *testing.T, host, user string, argv ...string) string {
	t.Helper()
	r := on(t, host, user, argv...)
	require.Zero(t, r.status, "%s: %v: %s", host, argv, r)
	return r.out
}

// submit hands a script to sbatch on the login host and returns the job's number.
func submit(t *testing.T, user, script string, options ...string) string {
	t.Helper()
	argv := append([]string{"sbatch", "--parsable", "--output=slurm-%j.out"}, options...)
	r := onWithInput(t, "login", user, "#!/bin/sh\n"+script+"\n", argv...)
	require.Zero(t, r.status, "sbatch: %s", r)
	id, _, _ := strings.Cut(strings.TrimSpace(r.out), ";")
	return id
}

// refused submits and expects sbatch itself to say no; it returns what the user reads.
func refused(t *testing.T, user, script string, options ...string) string {
	t.Helper()
	argv := append([]string{"sbatch", "--parsable", "--output=slurm-%j.out"}, options...)
	r := onWithInput(t, "login", user, "#!/bin/sh\n"+script+"\n", argv...)
	require.NotZero(t, r.status, "sbatch took it: %s", r)
	return r.errOut
}

// output is what the job wrote.
func output(t *testing.T, user, id string) string {
	t.Helper()
	return must(t, "login", user, "cat", "slurm-"+id+".out")
}

// field is one field of `scontrol show job`, "" when there is none.
func field(t *testing.T, id, name string) string {
	t.Helper()
	for word := range strings.FieldsSeq(on(t, "n0", "root", "scontrol", "-o", "show", "job", id).out) {
		if value, ok := strings.CutPrefix(word, name+"="); ok {
			return value
		}
	}
	return ""
}

// await waits until the job is in one of the states.
func await(t *testing.T, id string, states ...string) string {
	t.Helper()
	last := ""
	eventually(t, 90*time.Second, func() bool {
		last = field(t, id, "JobState")
		return slices.Contains(states, last)
	}, func() string {
		return fmt.Sprintf("job %s is %s, wanted %v\n%s", id, last, states, on(t, "n0", "root", "scontrol", "show", "job", id))
	})
	return last
}

// started waits until the job's own code runs on a node: Slurm calls a job RUNNING while its
// prologs still run.
func started(t *testing.T, id, user, node string) {
	t.Helper()
	await(t, id, "RUNNING")
	eventually(t, 60*time.Second, func() bool { return on(t, node, "root", "pgrep", "-u", user).status == 0 },
		func() string { return "nothing of " + user + "'s runs on " + node + " for job " + id })
}

// eventually asks every 100 ms until yes; what says what was seen last.
func eventually(t *testing.T, limit time.Duration, yes func() bool, what func() string) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for !yes() {
		if time.Now().After(deadline) {
			require.Fail(t, "waited in vain", what())
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// idle waits until all nodes of the enclave partition are idle: the epilogs are over.
func idle(t *testing.T) {
	t.Helper()
	var out string
	eventually(t, 60*time.Second, func() bool {
		out = must(t, "n0", "root", "sinfo", "-h", "-N", "-p", "cpu-sev", "-o", "%N=%T")
		for node := range strings.FieldsSeq(out) {
			if !strings.HasSuffix(node, "=idle") {
				return false
			}
		}
		return true
	}, func() string { return out + must(t, "n0", "root", "sinfo", "-R", "-o", "%400E %N") })
}

// reconfigure edits the controller's enclave.yaml with a script for sed and starts enclaved anew;
// the test's end takes it back.
func reconfigure(t *testing.T, script string) {
	t.Helper()
	const conf = "/etc/slurm-enclave/enclave.yaml"
	good := must(t, "n0", "root", "cat", conf)
	restart := func() { require.NoError(t, labCommand("restart", "n0", "enclaved").Run()) }
	t.Cleanup(func() {
		onWithInput(t, "n0", "root", good, "sh", "-c", "cat >"+conf)
		restart()
	})
	must(t, "n0", "root", "sed", "-i", script, conf)
	restart()
}

// state is the running lab, for tests that enter its namespaces.
func state(t *testing.T) lab.State {
	t.Helper()
	s, err := lab.Load()
	require.NoError(t, err)
	return s
}

// execCommand is a command of this machine that ends with the test.
func execCommand(t *testing.T, argv []string) *exec.Cmd {
	t.Helper()
	return exec.CommandContext(t.Context(), argv[0], argv[1:]...)
}
