//go:build e2e

package e2e_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// jobNamespaces are Slurm's plugins that give a job mounts of its own, each tried on n1 beside node isolation.
func jobNamespaces(t *testing.T) string {
	t.Helper()
	names := plugins(`((?:job_container|namespace)_(?:tmpfs|linux))`)(t)
	for name := range strings.SplitSeq(names, ", ") {
		t.Run(name, func(t *testing.T) { besideNamespace(t, name) })
	}
	return names
}

// besideNamespace runs a job with one of these plugins: it has Slurm's own /tmp and the tenant's subtree, and the
// node is closed again afterwards.
func besideNamespace(t *testing.T, name string) {
	t.Helper()
	idle(t)
	kind, which, _ := strings.Cut(strings.Replace(name, "job_container", "jobcontainer", 1), "_")
	line, file, text := "NamespaceType=namespace/"+which, "job_container.conf", `AutoBasePath=true\nBasePath=/run/jobns\n`
	if kind == "jobcontainer" {
		line = "JobContainerType=job_container/" + which
	}
	if which == "linux" {
		file, text = "namespace.yaml", `defaults:\n  auto_base_path: true\n  base_path: /run/jobns\n`
	}
	again := func() {
		restartSlurmd(t, "n1")
		must(t, "n1", "root", "enclave", "host", "close")
	}
	kept(t, "n1", "/etc/slurm/slurm.conf", func() {
		must(t, "n1", "root", "sh", "-c", "umount -R /run/jobns; rm -rf --one-file-system /run/jobns /etc/slurm/"+file)
		again()
	})
	must(t, "n1", "root", "sh", "-c", "echo '"+line+"' >>/etc/slurm/slurm.conf; printf '"+text+"' >/etc/slurm/"+file)
	again()

	id := submit(t, "alice", "touch /lustre/beside; echo mine >/tmp/mine; srun sh -c 'cat /tmp/mine; ls /lustre; grep /tmp /proc/self/mountinfo'", "--partition=cpu-sev", "--nodelist=n1")
	state := await(t, id, "COMPLETED", "FAILED")
	said := output(t, "alice", id)
	assert.Equal(t, "COMPLETED", state, said)
	assert.Contains(t, said, "mine\n")
	assert.Contains(t, said, "beside\n")
	assert.Contains(t, said, "/jobns/", "the control: Slurm's plugin is at work")
	idle(t)
	r := on(t, "n1", "root", "enclave", "host", "check")
	assert.Zero(t, r.status, "%s", r)
	assert.NotZero(t, on(t, "n1", "root", "test", "-e", "/tmp/mine").status)
}

// restartSlurmd restarts a node's slurmd and waits until slurmctld has heard of it: a job that starts before is requeued.
func restartSlurmd(t *testing.T, node string) {
	t.Helper()
	start := func() string {
		return regexp.MustCompile(`SlurmdStartTime=\S+`).FindString(must(t, "n0", "root", "scontrol", "show", "node", node))
	}
	before := start()
	require.NoError(t, labCommand("restart", node, "slurmd").Run())
	eventually(t, 60*time.Second, func() bool {
		now := start()
		return now != before && now != "SlurmdStartTime=None" && strings.TrimSpace(must(t, "n0", "root", "sinfo", "-h", "-N", "-n", node, "-o", "%T")) == "idle"
	}, func() string { return must(t, "n0", "root", "scontrol", "show", "node", node) })
}
