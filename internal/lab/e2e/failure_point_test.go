//go:build e2e

package e2e_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/lab"
)

// point is where a job of alice's on all three nodes is when something fails. At takes one there, and
// gives its number and what lets it go on.
type point struct {
	name string
	at   func(t *testing.T) (id string, goOn func())
}

func points() []point {
	return []point{{"in the prolog", inProlog}, {"while the job runs", inJob}, {"in the epilog", inEpilog}}
}

// slowness is how long n3's evidence takes, in milliseconds: the other prologs wait for it at barrier 1,
// whose deadline is after 20 s.
const slowness = "12000"

// lives is a job that goes on when its owner says so, and then prints a line for each node. Its step has begun before:
// a slurmctld that has just started makes srun wait two minutes for a new one.
const lives = `srun sh -c "until [ -e ~/go-on-$SLURM_JOB_ID ]; do sleep 0.2; done; echo \$(hostname) lives"`

func inProlog(t *testing.T) (id string, goOn func()) {
	t.Helper()
	setFault(t, "n3", `{"slow": `+slowness+`}`)
	id = submit(t, "alice", "srun true", "--partition=cpu-sev", "--nodes=3")
	t.Cleanup(func() { on(t, "n0", "root", "scancel", id) })
	for _, n := range enclaveNodes() {
		eventually(t, 30*time.Second, func() bool {
			return on(t, n, "root", "sh", "-c", "pgrep -x enclave-prolog && ls /run/slurm-enclave/"+id+".*/journal").status == 0
		}, func() string { return "no prolog on " + n })
	}
	return id, func() { on(t, "n3", "root", "sh", "-c", "echo '{}' >/run/enclave-tsm.faults") }
}

func inJob(t *testing.T) (id string, goOn func()) {
	t.Helper()
	id = submit(t, "alice", lives, "--partition=cpu-sev", "--nodes=3")
	t.Cleanup(func() {
		on(t, "n0", "root", "scancel", id)
		on(t, "login", "alice", "rm", "-f", "go-on-"+id)
	})
	started(t, id, "alice", "n2") // the batch script is on n1, the step on all
	return id, func() { must(t, "login", "alice", "touch", "go-on-"+id) }
}

func inEpilog(t *testing.T) (id string, goOn func()) {
	t.Helper()
	h := holdNext(t, "n2", "enclave-epilog")
	id = submit(t, "alice", "srun true", "--partition=cpu-sev", "--nodes=3")
	t.Cleanup(func() { on(t, "n0", "root", "scancel", id) })
	h.held()
	return id, h.goOn
}

// hold keeps a prolog or epilog on a node from beginning.
type hold struct {
	t    *testing.T
	node string
	path string // of the program
}

// Where a held program lies, what it waits for, and its process id, on its node.
const (
	heldProgram = "/root/held"
	heldGate    = "/run/held"
	heldPID     = "/run/held.pid"
)

// holdNext has a node's next prolog or epilog wait before it does anything. It is no signal that stops it, for
// the kernel ends stopped programs whose slurmd dies.
func holdNext(t *testing.T, node, program string) *hold {
	t.Helper()
	h := &hold{t, node, "/usr/libexec/slurm-enclave/" + program}
	script := strings.Join([]string{
		"#!/bin/sh", "/bin/mv " + heldProgram + " " + h.path, "echo $$ >" + heldPID, "read x <" + heldGate, "exec " + h.path + ` "$@"`, "",
	}, "\n")
	r := onWithInput(t, node, "root", script, "sh", "-ec", "rm -f "+heldGate+" "+heldPID+"; mkfifo "+heldGate+"; cat >"+h.path+".new; chmod 755 "+h.path+".new; mv "+h.path+" "+heldProgram+"; mv "+h.path+".new "+h.path)
	require.Zero(t, r.status, "%s", r)
	t.Cleanup(func() {
		on(t, node, "root", "sh", "-c", "[ ! -e "+heldProgram+" ] || mv "+heldProgram+" "+h.path)
		h.goOn()
		on(t, node, "root", "rm", "-f", heldGate, heldPID)
	})
	return h
}

// held waits until it is there.
func (h *hold) held() {
	h.t.Helper()
	eventuallyOn(h.t, h.node, "test", "-s", heldPID)
}

// goOn lets it go on, if it still waits.
func (h *hold) goOn() {
	h.t.Helper()
	on(h.t, h.node, "root", "sh", "-c", "[ ! -s "+heldPID+" ] || ! kill -0 $(cat "+heldPID+") || [ ! -p "+heldGate+" ] || timeout 5 sh -c 'echo >"+heldGate+"; rm -f "+heldGate+"'")
}

// daemonOf is a daemon of the lab as the supervisor sees it.
func daemonOf(t *testing.T, host, name string) lab.DaemonState {
	t.Helper()
	for _, h := range state(t).Hosts {
		for _, d := range h.Daemons {
			if h.Name == host && d.Name == name {
				return d
			}
		}
	}
	require.Fail(t, "no such daemon", "%s on %s", name, host)
	return lab.DaemonState{}
}

// send gives a daemon of the lab a signal.
func send(t *testing.T, host, name, signal string) {
	t.Helper()
	must(t, host, "root", "kill", "-"+signal, strconv.Itoa(daemonOf(t, host, name).PID))
}

// begin starts a daemon again once it has ended.
func begin(t *testing.T, host, name string) {
	t.Helper()
	eventually(t, 60*time.Second, func() bool { return daemonOf(t, host, name).End != "" }, func() string { return name + " does not end" })
	require.NoError(t, labCommand("start", host, name).Run())
}

// anew ends a daemon with a signal, and starts it again.
func anew(t *testing.T, host, name, signal string) {
	t.Helper()
	send(t, host, name, signal)
	begin(t, host, name)
}

// saved waits until slurmctld has written what it knows now to the disk: what it has not is lost when it
// is killed, the job's number included.
func saved(t *testing.T) {
	t.Helper()
	must(t, "n0", "root", "touch", "/run/marker")
	eventually(t, 60*time.Second, func() bool {
		return on(t, "n0", "root", "find", "/var/spool/slurmctld/job_state", "-newer", "/run/marker").out != ""
	}, func() string { return must(t, "n0", "root", "ls", "-la", "/var/spool/slurmctld") })
}

// keeperStays looks that n2's keeper is the one that was there before.
func keeperStays(t *testing.T, act func()) {
	t.Helper()
	pid := must(t, "n2", "root", "pgrep", "-x", "enclave-keeper")
	act()
	assert.Equal(t, pid, must(t, "n2", "root", "pgrep", "-x", "enclave-keeper"), "the keeper stays")
}
