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

	"github.com/slurm-enclave/slurm-enclave/internal/journal"
)

// killIn in the environment makes the test program a killer on a node: it waits for the stage.
const killIn = "E2E_KILL_PROLOG_IN"

// killProlog kills the node's prolog when its journal names the stage and prints the last line
// of the journal that it left. A shell is too slow: a stage takes a few milliseconds.
func killProlog(stage string) int {
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		pids, seen := prologs(), false
		for len(pids) > 0 && !seen && alive(pids[0]) {
			seen = lastLine().Stage == stage
		}
		if !seen {
			continue
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		fmt.Println(lastLine().Stage)
		return 0
	}
	fmt.Println("no prolog came to stage", stage)
	return 1
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
	self, err := os.Executable()
	require.NoError(t, err)
	for _, stage := range []string{"mesh", "fence", "subtree"} {
		t.Run("in stage "+stage, func(t *testing.T) {
			for try := 1; ; try++ { // the stage may be over before the signal arrives
				argv, err := state(t).Command("n2", "root", []string{"env", killIn + "=" + stage, self})
				require.NoError(t, err)
				killer := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
				var said strings.Builder
				killer.Stdout = &said
				require.NoError(t, killer.Start())
				id := submit(t, "alice", "srun hostname", "--partition=cpu-sev", "--nodes=3")
				require.NoError(t, killer.Wait(), said.String())
				end(t, id)
				if said.String() == stage+"\n" {
					return
				}
				require.Less(t, try, 5, "killed too late: %s", said.String())
			}
		})
	}
}
