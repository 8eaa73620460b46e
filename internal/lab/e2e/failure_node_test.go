//go:build e2e && failures

package e2e_test

import (
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// cable pulls the cable of a node's first card, or plugs it in.
func cable(t *testing.T, node, updown string) {
	t.Helper()
	// A cleanup plugs it in, when the test's context is over.
	c := exec.Command("nsenter", "--target", strconv.Itoa(state(t).Supervisor), "--net", "--", "ip", "link", "set", "lab-"+node, updown)
	out, err := c.CombinedOutput()
	require.NoError(t, err, string(out))
}

// crash ends everything on n2 that a reset button would end, and forgets what a reset forgets. Mounts are the
// mounts that were there before the job. SlurmdSpoolDir is in memory: on a disk the socket of the step's PMIx server stays, and
// Slurm can't launch the step of that number again (tmpfiles.d/slurm-enclave.conf).
func crash(t *testing.T, mounts string) {
	t.Helper()
	r := onWithInput(t, "n2", "root", mounts, "sh", "-c", `pkill -KILL -x slurmd; pkill -KILL enclave-keeper; pkill -KILL slurmstepd; pkill -KILL -u alice; sleep 0.3
cat >/run/mounts; awk 'NR==FNR {old[$1]; next} !($1 in old) {print $5}' /run/mounts /proc/self/mountinfo | tac | while read -r m; do umount "$m"; done; rm /run/mounts
for l in $(ip -o link | grep -o 'enc[0-9]*'); do ip link del $l; done
nft flush ruleset; find /sys/fs/cgroup -mindepth 2 -depth -type d -exec rmdir {} + 2>/dev/null
for v in -4 -6; do for r in $(ip $v rule | cut -d: -f1 | grep -vx '0\|32766\|32767'); do ip $v rule del pref $r; done; done
rm -rf /run/slurm-enclave /var/spool/slurmd/*`)
	require.Zero(t, r.status, "%s", r)
	eventually(t, 20*time.Second, func() bool { return daemonOf(t, "n2", "slurmd").End != "" }, func() string { return "slurmd lives" })
}

// bootID is what the kernel calls this boot. The lab's hosts share a kernel, so that a host that boots is
// given another one.
const bootID = "/proc/sys/kernel/random/boot_id"

// A node is lost while a job runs on it.
func TestFailuresOfANode(t *testing.T) {
	f := newFailures(t, "node lost")
	f.row(t, "the cable of a node is out for longer than the grace period", promise{job: "CANCELLED", starts: "refused E531"}, func(t *testing.T) string {
		hasten(t)
		id, _ := inJob(t)
		cable(t, "n2", "down")
		t.Cleanup(func() { cable(t, "n2", "up") })
		eventually(t, 40*time.Second, func() bool { return !goFile(t, "n2", id) }, func() string { return "n2 is still open" })
		eventually(t, 40*time.Second, func() bool { return field(t, id, "JobState") != "RUNNING" }, func() string { return "the job runs on" })
		cable(t, "n2", "up")
		return id
	})
	f.row(t, "the cable of a node is out until Slurm gives the node up", promise{job: "CANCELLED", starts: "refused E531", drained: map[string]string{"n2": "Not responding"}}, func(t *testing.T) string {
		hasten(t)
		id, _ := inJob(t)
		cable(t, "n2", "down")
		t.Cleanup(func() { cable(t, "n2", "up") })
		eventually(t, 3*time.Minute, func() bool { s, _ := service(t, "n2"); return s == "down" }, func() string { return must(t, "n0", "root", "sinfo") })
		cable(t, "n2", "up")
		return id
	})
	f.row(t, "slurmd and keeper of a node are killed", promise{job: "CANCELLED", starts: "refused E531"}, func(t *testing.T) string {
		hasten(t)
		id, _ := inJob(t)
		send(t, "n2", "slurmd", "KILL")
		must(t, "n2", "root", "pkill", "-KILL", "enclave-keeper")
		eventually(t, 40*time.Second, func() bool { return field(t, id, "JobState") != "RUNNING" }, func() string { return "the job runs on" })
		begin(t, "n2", "slurmd")
		return id
	})
	booted := promise{job: "COMPLETED", starts: "[a-z]+( E[0-9]+)?; simulated", drained: map[string]string{"n2": "unexpectedly rebooted"}, meets: "PENDING"}
	booted.after = func() {
		must(t, "n2", "root", "sh", "-c", "umount "+bootID+" && rm /run/boot_id && enclave host close")
	}
	f.row(t, "a node boots while a job runs", booted, func(t *testing.T) string {
		mounts := must(t, "n2", "root", "cat", "/proc/self/mountinfo")
		id, goOn := inJob(t)
		crash(t, mounts)
		goOn()
		must(t, "n2", "root", "sh", "-c", "echo 12345678-1234-4234-8234-123456789abc >/run/boot_id && mount --bind /run/boot_id "+bootID)
		must(t, "n2", "root", "enclave", "host", "close") // enclave-host.service, before slurmd
		must(t, "n2", "root", "sh", "-c", "slurmd -b -N n2 </dev/null >/dev/null 2>&1")
		eventually(t, 60*time.Second, func() bool { s, _ := service(t, "n2"); return s == "down" }, func() string { return must(t, "n0", "root", "sinfo") })
		await(t, id, "PENDING")
		// With -b slurmd tells of a boot each time that it registers.
		must(t, "n2", "root", "sh", "-c", "pkill -TERM -x slurmd; while pgrep -x slurmd; do sleep 0.1; done >/dev/null")
		begin(t, "n2", "slurmd")
		return id
	})
}
