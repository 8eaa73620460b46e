//go:build e2e

package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// nodeTrace is everything of a node that a job could leave behind, as text.
func nodeTrace(t *testing.T, node string) string {
	t.Helper()
	return must(t, node, "root", "sh", "-c", strings.Join([]string{
		"ip -o link | cut -d: -f2", "ip rule", "ip -6 rule", "ip route show table all", "nft list ruleset | grep -v 'counter packets\\|packets [0-9]'",
		"cut -d' ' -f4-6 /proc/self/mountinfo", "ls -laR /run/slurm-enclave | grep -v '^d\\|^total'",
		"ps -e -o user=,comm= | grep -v 'sh$\\|ps$\\|grep$\\|cut$\\|sort$\\|sleep$' | sort", "ls /tmp /var/tmp /dev/shm", "ipcs | tail -n +4",
	}, "; echo ==; "))
}

func TestP4NothingIsLeft(t *testing.T) {
	idle(t)
	before := map[string]string{}
	for n := 1; n <= labNodes; n++ {
		node := fmt.Sprintf("n%d", n)
		before[node] = nodeTrace(t, node)
	}
	compare := func(t *testing.T) {
		t.Helper()
		idle(t)
		for node, was := range before {
			assert.Equal(t, was, nodeTrace(t, node), node)
			r := on(t, node, "root", "enclave", "host", "check")
			assert.Zero(t, r.status, "%s: %s", node, r)
		}
	}
	mess := `touch /tmp/mine /var/tmp/mine /dev/shm/mine; ipcmk -M 4096 >/dev/null; setsid nohup sleep 9999 >/dev/null 2>&1 &
srun sh -c 'touch /dev/shm/rank; ipcmk -Q >/dev/null; hostname'`
	t.Run("after a job that left all it could", func(t *testing.T) {
		id := submit(t, "alice", mess, "--partition=cpu-sev", "--nodes=3")
		await(t, id, "COMPLETED")
		compare(t)
	})
	t.Run("after scancel of a running job", func(t *testing.T) {
		id := submit(t, "alice", "srun sleep 1000", "--partition=cpu-sev", "--nodes=3")
		started(t, id, "alice", "n1")
		must(t, "login", "alice", "scancel", id)
		await(t, id, "CANCELLED")
		compare(t)
	})
	t.Run("after the keeper was killed during the job", func(t *testing.T) {
		id := submit(t, "alice", "srun sleep 1000", "--partition=cpu-sev", "--nodes=3")
		started(t, id, "alice", "n1")
		must(t, "n2", "root", "pkill", "-KILL", "enclave-keeper")
		time.Sleep(time.Second)
		must(t, "login", "alice", "scancel", id)
		await(t, id, "CANCELLED", "FAILED", "NODE_FAIL")
		compare(t)
	})
}

func TestP3BobAfterAliceSeesNothingOfHers(t *testing.T) {
	const secret = "ALICES-SECRET-5e1f"
	id := submit(t, "alice", `for d in /tmp /var/tmp /dev/shm /lustre; do echo `+secret+` >$d/secret; chmod 644 $d/secret; done
echo `+secret+` | srun --nodes=2 cat`, "--partition=cpu-sev", "--nodes=2", "--nodelist=n1,n2")
	await(t, id, "COMPLETED")
	idle(t)
	id = submit(t, "bob", `srun sh -c 'find /tmp /var/tmp /dev/shm /lustre -name secret; ls /home; grep -l `+"ALICES"+`-SECRET /tmp/* /dev/shm/* 2>/dev/null
ps -u alice -o pid=; ip -o link show | grep enc; ls /srv/enclave-fs /run/slurm-enclave; cat /lustre/../srv/enclave-fs/lab/proj/digimed/secret; true'`,
		"--partition=cpu-sev", "--nodes=2", "--nodelist=n1,n2")
	await(t, id, "COMPLETED")
	seen := output(t, "bob", id)
	assert.NotContains(t, seen, "/secret\n")
	assert.NotContains(t, seen, "SECRET")
	assert.NotContains(t, seen, "alice\n")
	assert.Contains(t, seen, "enc"+id, "the job's own tunnel is there")
	assert.Contains(t, seen, "Permission denied")
	idle(t)
	t.Run("and alice finds her file again", func(t *testing.T) {
		id := submit(t, "alice", "cat /lustre/secret", "--partition=cpu-sev")
		await(t, id, "COMPLETED")
		require.Contains(t, output(t, "alice", id), secret)
		idle(t)
	})
}
