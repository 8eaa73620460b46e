//go:build e2e

package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
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

// killIn in the environment makes the test program a killer on a node: it waits for the stage.
const killIn = "E2E_KILL_PROLOG_IN"

const missed = "missed"

// killProlog kills the node's next prolog in a stage, as its journal tells, and prints the stage
// that the journal ends with. A stage takes a few milliseconds: the prolog runs in slices until it
// is there. On a busy machine it may be through with the stage before it can be stopped.
func killProlog(stage string) int {
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, -20)
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0)
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Microsecond) {
		pids := prologs()
		if len(pids) == 0 {
			continue
		}
		for alive(pids[0]) && lastLine().Stage != stage {
			time.Sleep(20 * time.Microsecond) // at the killer's priority nobody else runs meanwhile
			if lastLine().Seq != 0 {
				signalAll(pids, syscall.SIGSTOP)
				if lastLine().Stage == stage {
					break
				}
				signalAll(pids, syscall.SIGCONT)
			}
		}
		if !alive(pids[0]) {
			fmt.Println(missed)
			return 0
		}
		signalAll(pids, syscall.SIGKILL)
		fmt.Println(lastLine().Stage)
		return 0
	}
	fmt.Println("no prolog came")
	return 1
}

func signalAll(pids []int, s syscall.Signal) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, s)
	}
}

func prologs() (pids []int) {
	names, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, name := range names {
		if b, err := os.ReadFile(name); err == nil && string(b) == "enclave-prolog\n" {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			pids = append(pids, pid)
		}
	}
	return pids
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func lastLine() (l journal.Line) {
	names, _ := filepath.Glob("/run/slurm-enclave/*/journal")
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
		_ = json.Unmarshal(lines[len(lines)-1], &l)
	}
	return l
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
	const killer = "/root/killer"
	copySelf(t, "n2", killer)
	for _, stage := range []string{"mesh", "fence", "subtree"} {
		t.Run("in stage "+stage, func(t *testing.T) {
			for try := 1; ; try++ { // the stage may be over before the signal arrives
				argv, err := state(t).Command("n2", "root", []string{"env", killIn + "=" + stage, killer})
				require.NoError(t, err)
				running := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
				var said strings.Builder
				running.Stdout = &said
				require.NoError(t, running.Start())
				id := submit(t, "alice", "srun hostname", "--partition=cpu-sev", "--nodes=3")
				require.NoError(t, running.Wait(), said.String())
				if said.String() == missed+"\n" {
					await(t, id, "COMPLETED")
					idle(t)
				} else {
					end(t, id)
				}
				if said.String() == stage+"\n" {
					return
				}
				require.Less(t, try, 10, "killed too late: %s", said.String())
			}
		})
	}
}
