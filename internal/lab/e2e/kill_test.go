//go:build e2e

package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/journal"
)

// killAt in the environment makes the test program a killer on a node: PROGRAM STAGE ACT says which
// program it is to catch, and at which line of its journal; "resume" as a fourth word lets the program go on when
// the killer's standard input ends. A fifth is another program that must be there by then.
const killAt = "E2E_KILL_AT"

const missed = "missed"

// killer catches the node's next program of that name when its journal ends with a step, and prints the
// step that it ends with. A step takes less than a millisecond: the program runs in slices until it
// is there. On a busy machine it may be through with the step before it can be stopped.
func killer(order string) int {
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, -20)
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0)
	words := strings.Fields(order)
	want := step{words[1], journal.Act(words[2])}
	there := func() bool { return lastStep() == want && (len(words) < 5 || len(processesOf(words[4])) > 0) }
	for end := time.Now().Add(40 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Microsecond) {
		pids := processesOf(words[0])
		if len(pids) == 0 {
			continue
		}
		for alive(pids[0]) && !there() {
			time.Sleep(20 * time.Microsecond) // at the killer's priority nobody else runs meanwhile
			if lastStep() != (step{}) {
				signalAll(pids, syscall.SIGSTOP)
				if stops(pids[0]) && there() {
					break
				}
				signalAll(pids, syscall.SIGCONT)
			}
		}
		if !alive(pids[0]) {
			fmt.Println(missed)
			return 0
		}
		if len(words) < 4 {
			signalAll(pids, syscall.SIGKILL)
			fmt.Println(lastStep())
			return 0
		}
		signalAll(pids, syscall.SIGSTOP)
		fmt.Println(lastStep())
		_, _ = io.Copy(io.Discard, os.Stdin)
		signalAll(pids, syscall.SIGCONT)
		return 0
	}
	fmt.Println("no " + words[0] + " came")
	return 1
}

// step is one line of a journal.
type step struct {
	stage string
	act   journal.Act
}

func (s step) String() string { return s.stage + " " + string(s.act) }

func signalAll(pids []int, s syscall.Signal) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, s)
	}
}

func processesOf(program string) (pids []int) {
	names, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, name := range names {
		if b, err := os.ReadFile(name); err == nil && string(b) == program+"\n" {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// alive is false for a zombie, too: what has ended is not to be killed.
func alive(pid int) bool { return !strings.ContainsAny(life(pid), "ZX") && life(pid) != "" }

// life is the state of a process as ps shows it (proc(5), stat), "" for none.
func life(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, ok := strings.Cut(string(b), ") ")
	if err != nil || !ok {
		return ""
	}
	return rest[:1]
}

// stops waits until a process to which SIGSTOP was sent stands still; it may end before.
func stops(pid int) bool {
	for alive(pid) {
		if life(pid) == "T" {
			return true
		}
		time.Sleep(20 * time.Microsecond)
	}
	return false
}

func lastStep() step {
	names, _ := filepath.Glob("/run/slurm-enclave/*/journal")
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		if all := stepsOf(b); len(all) > 0 {
			return all[len(all)-1]
		}
	}
	return step{}
}

// stepsOf are the steps of a journal, in order.
func stepsOf(b []byte) (all []step) {
	for line := range bytes.Lines(b) {
		var l journal.Line
		if json.Unmarshal(line, &l) == nil && l.Seq != 0 {
			all = append(all, step{l.Stage, l.Act})
		}
	}
	return all
}

// copySelf puts the test program on a node, which sees neither this machine's /tmp nor its build folders.
func copySelf(t *testing.T, node, path string) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	b, err := os.ReadFile(self)
	require.NoError(t, err)
	r := onWithInput(t, node, "root", string(b), "sh", "-c", "cat >"+path+" && chmod 700 "+path)
	require.Zero(t, r.status, "%s", r)
	t.Cleanup(func() { on(t, node, "root", "rm", "-f", path) })
}

// A prolog that is killed drains its node, for Slurm can't know better; what it had begun is
// taken down all the same.
func TestP4AKilledPrologLeavesNothing(t *testing.T) {
	idle(t)
	was := nodeTrace(t, "n2")
	end := func(t *testing.T, id string) {
		t.Helper()
		eventually(t, 60*time.Second, func() bool { return drained(t, "n2") != "" },
			func() string { return must(t, "n0", "root", "sinfo", "-R") })
		must(t, "n0", "root", "scancel", id)
		await(t, id, "CANCELLED")
		eventually(t, 30*time.Second, func() bool { return nodeTrace(t, "n2") == was }, func() string { return nodeTrace(t, "n2") })
		must(t, "n0", "root", "scontrol", "update", "NodeName=n2", "State=RESUME")
		idle(t)
	}
	t.Run("while it waits at the barrier", func(t *testing.T) {
		setFault(t, "n3", `{"slow": 3000}`)
		id := submit(t, "alice", "srun hostname", "--partition=cpu-sev", "--nodes=3")
		eventually(t, 20*time.Second, func() bool { return on(t, "n2", "root", "pgrep", "enclave-prolog").status == 0 },
			func() string { return "no prolog on n2" })
		must(t, "n2", "root", "pkill", "-KILL", "enclave-prolog")
		end(t, id)
	})
}
