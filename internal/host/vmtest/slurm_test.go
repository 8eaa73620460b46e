//go:build vm

package vmtest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/host/vmtest"
)

// cluster is a second site, where Slurm itself calls the four scripts and the plugin guards the tasks.
var cluster = site{grace: 40, slurmUser: "enclave", slurm: &slurm{slurmContents, slurmFiles, (*site).startSlurm}}

// slurmPrograms are Debian's, to where Slurm looks for them.
var slurmPrograms = []string{
	"/usr/sbin/slurmctld", "/usr/sbin/slurmd", "/usr/sbin/slurmstepd", "/usr/sbin/munged", "/usr/bin/munge", "/usr/bin/unmunge",
	"/lib/x86_64-linux-gnu/libgcc_s.so.1", // which a thread that ends opens
	"/usr/bin/sbatch", "/usr/bin/srun", "/usr/bin/squeue", "/usr/bin/scontrol", "/usr/bin/scancel", "/usr/bin/sinfo", "/usr/bin/sacctmgr", "/usr/bin/sacct",
}

// otherPlugins are of hardware and services that the machines have not.
var otherPlugins = regexp.MustCompile(`mysql|slurmdbd|openapi|rest_|jwt|pmix|pmi2|cray|knl|gpu_|rapl|ibmaem|lustre|yaml|pbs|datawarp|nonstop|libslurm_pmi`)

// slurmContents are Slurm's files in the machines.
func slurmContents(c vmtest.Contents) error {
	for _, name := range slurmPrograms {
		c[name] = name
	}
	top, err := vmtest.Top()
	if err != nil {
		return err
	}
	c["/etc/slurm/slurm.conf.d/enclave.conf"], c[etcDir+"enclave.lua"] = filepath.Join(top, "etc/slurm.conf.d/enclave.conf"), filepath.Join(top, "etc/enclave.lua")
	plugins, err := filepath.Glob(pluginDir + "*.so")
	for _, name := range plugins {
		if !otherPlugins.MatchString(filepath.Base(name)) {
			c[name] = name
		}
	}
	return err
}

// slurmFiles are the configuration beside the samples of etc/. SlurmUser is enclaved's user: there is
// no slurmdbd to say that it is an administrator.
var slurmFiles = map[string]string{
	"/etc/slurm/slurm.conf": strings.Join([]string{
		"ClusterName=vm", "SlurmctldHost=n0", "SlurmUser=enclave", "AuthType=auth/munge", "CredType=cred/munge", "AuthInfo=cred_expire=5",
		"StateSaveLocation=/var/spool/slurmctld", "SlurmdSpoolDir=/var/spool/slurmd", "SlurmctldPidFile=/run/slurmctld.pid", "SlurmdPidFile=/run/slurmd.pid",
		"ProctrackType=proctrack/cgroup", "TaskPlugin=task/none", "MpiDefault=none", "SelectType=select/cons_tres", "SlurmdParameters=config_overrides",
		"KillWait=2", "MinJobAge=600", "ReturnToService=0", "JobAcctGatherType=jobacct_gather/none", "AccountingStorageType=accounting_storage/none",
		"PlugStackConfig=/etc/slurm/plugstack.conf", "Include /etc/slurm/slurm.conf.d/enclave.conf",
		"NodeName=n1 NodeAddr=10.78.0.1 CPUs=1 RealMemory=128 State=UNKNOWN", "NodeName=n2 NodeAddr=10.78.0.2 CPUs=1 RealMemory=128 State=UNKNOWN",
		"PartitionName=cpu-sev Nodes=n[1-2] OverSubscribe=EXCLUSIVE PreemptMode=OFF DisableRootJobs=YES MaxTime=1-00:00:00 State=UP", "",
	}, "\n"),
	"/etc/slurm/cgroup.conf": "CgroupPlugin=cgroup/v2\nIgnoreSystemd=yes\nCgroupAutomount=yes\n",
	"/etc/slurm/job_submit.lua": `local enclave = dofile("/etc/slurm-enclave/enclave.lua")
function slurm_job_submit(job, partitions, uid) return enclave.submit(job, partitions, uid) end
function slurm_job_modify(job, record, partitions, uid) return enclave.modify(job, record, partitions, uid) end
`,
}

// daemon starts a program that runs as long as the machine, and waits until the check succeeds.
func daemon(m *vmtest.Machine, c vmtest.Command, check string) error {
	c.Dir = "/" // not where a job's own /tmp will be
	c.Argv = []string{"/bin/sh", "-c", "exec " + strings.Join(c.Argv, " ") + " >>/var/log/" + filepath.Base(c.Argv[0]) + ".log 2>&1"}
	p := m.Start(c)
	if err := shell(m, "n=0; until "+check+"; do n=$((n + 1)); [ $n -lt 120 ]; usleep 500000; done"); err != nil {
		out, _ := m.Try("sh", "-c", "cat /var/log/*.log")
		return fmt.Errorf("%w: %s\n%s", err, p.Output(), out)
	}
	return nil
}

const mungeUID = 901

func startMunge(m *vmtest.Machine) error {
	err := shell(m, fmt.Sprintf("mkdir -p /run/munge /var/lib/munge /var/log/munge /etc/munge; yes 4711 | head -c 1024 >/etc/munge/munge.key; chmod 400 /etc/munge/munge.key; chown -R %d:%[1]d /run/munge /var/lib/munge /var/log/munge /etc/munge", mungeUID))
	if err != nil {
		return err
	}
	return daemon(m, vmtest.Command{Argv: []string{"/usr/sbin/munged", "--foreground"}, UID: mungeUID}, "/usr/bin/munge -n >/dev/null")
}

// startSlurm starts slurmctld, and slurmd on nodes that are closed.
func (s *site) startSlurm() error {
	err := errors.Join(startMunge(s.controller), shell(s.controller, fmt.Sprintf("mkdir -p /var/spool/slurmctld; chown %d /var/spool/slurmctld", enclaveUID)))
	if err != nil {
		return err
	}
	ping := "/usr/bin/scontrol ping | grep -q ' is UP'"
	if err := daemon(s.controller, vmtest.Command{Argv: []string{"/usr/sbin/slurmctld", "-D"}, UID: enclaveUID}, ping); err != nil {
		return err
	}
	return s.each(func(n *node) error { return errors.Join(startMunge(n.Machine), n.startSlurmd()) })
}

func (n *node) startSlurmd() error {
	if err := shell(n.Machine, "mkdir -p /var/spool/slurmd"); err != nil {
		return err
	}
	return daemon(n.Machine, vmtest.Command{Argv: []string{"/usr/sbin/slurmd", "-D", "-N", n.Name}, Cgroup: slurmdGroup},
		"/usr/bin/sinfo -h -n "+n.Name+" -o %T | grep -q idle")
}

// submit gives a batch job of alice's on both nodes and waits until its first line has run.
func (s *site) submit(t *testing.T, script string) (id string) {
	t.Helper()
	for _, n := range s.nodes { // of the job before
		n.Run(t, "sh", "-c", "rm -rf "+siteMount+"/proj/digimed/*")
	}
	out, ok := s.controller.Start(vmtest.Command{
		Argv: []string{"/usr/bin/sbatch", "--parsable", "-p", "cpu-sev", "-A", "digimed", "-N2", "--chdir=/lustre", "-o", "/lustre/out"}, UID: user,
		Input: "#!/bin/sh\necho begun\n" + script,
	}).Wait(patience)
	require.True(t, ok, out)
	id = strings.TrimSpace(out)
	t.Cleanup(func() { s.controller.Try("/usr/bin/scancel", id) })
	return id
}

func (s *site) jobState(t *testing.T, id string) string {
	t.Helper()
	return strings.TrimSpace(s.controller.Run(t, "/usr/bin/squeue", "-h", "-a", "-t", "all", "-j", id, "-o", "%T"))
}

// await waits for a state of the job and for idle nodes, unless a node is named that is drained.
func (s *site) await(t *testing.T, id, state, nodes string) {
	t.Helper()
	require.Eventually(t, func() bool { return s.jobState(t, id) == state }, patience, 500*time.Millisecond, "last seen: %s", s.jobState(t, id))
	require.Eventually(t, func() bool {
		return strings.Join(strings.Fields(s.controller.Run(t, "/usr/bin/sinfo", "-h", "-N", "-o", "%n:%T")), " ") == nodes
	}, patience, 500*time.Millisecond, nodes)
}

const idle = "n1:idle n2:idle"

func (n *node) begun(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool { _, ok := n.Try("grep", "-q", "begun", n.output()); return ok }, patience, 500*time.Millisecond)
}

func (n *node) output() string { return siteMount + "/proj/digimed/out" }

// TestP1P2P4SlurmOnMachines is Slurm with cgroup v2 and kernel WireGuard.
func TestP1P2P4SlurmOnMachines(t *testing.T) {
	s := cluster.ready(t)
	n1, n2 := s.nodes[0], s.nodes[1]
	t.Run("a job's tasks talk through WireGuard alone, and nothing is left", func(t *testing.T) {
		s.wire.Clear()
		id := s.submit(t, `srun --overlap -N1 -n1 -w n2 sh -c 'cat /proc/self/cgroup >/lustre/group; nc -l -p 7000 >/lustre/heard' &
sleep 3
word=SECRET
export word
srun --overlap -N1 -n1 -w n1 sh -c 'echo $word-OF-THE-TENANT | nc 10.78.0.2 7000'
wait
env | grep ENCLAVE_
`)
		s.await(t, id, "COMPLETED", idle)
		assert.Equal(t, secret, n2.Run(t, "cat", siteMount+"/proj/digimed/heard"))
		assert.Zero(t, s.wire.Holds(secret))
		assert.Contains(t, n2.Run(t, "cat", siteMount+"/proj/digimed/group"), "/job_"+id+"/")
		assert.Contains(t, n1.Run(t, "cat", n1.output()), "ENCLAVE_VERDICT=simulated")
		s.closed(t)
		var report struct {
			Verdict  string
			Timeline map[string]int `json:"timeline_ms"`
		}
		out := s.controller.Run(t, "/usr/bin/enclave", "report", id, "--json")
		require.NoError(t, json.Unmarshal([]byte(out), &report))
		assert.Equal(t, "simulated", report.Verdict)
		t.Log(report.Timeline)
		s.verify(t, id)
	})
	t.Run("slurmd's end and new start harm no job", func(t *testing.T) {
		id := s.submit(t, "sleep 25\n")
		n1.begun(t)
		n2.Run(t, "sh", "-c", "echo 1 >/sys/fs/cgroup/"+slurmdGroup+"/cgroup.kill")
		n2.Run(t, "pidof", "enclave-keeper")
		require.NoError(t, n2.again())
		s.await(t, id, "COMPLETED", idle)
		s.closed(t)
	})
	t.Run("a keeper that is killed ends the job when its node is overdue", func(t *testing.T) {
		id := s.submit(t, "sleep 1000\n")
		n1.begun(t)
		n2.Run(t, "killall", "-KILL", "enclave-keeper")
		n2.Run(t, "ip", "link", "show", "enc"+id)
		s.await(t, id, "CANCELLED", idle)
		out, _ := s.controller.Try("/usr/bin/enclave", "why", id)
		assert.Contains(t, out, "E531")
		s.closed(t)
	})
	t.Run("a node with bad evidence is drained, the job waits, and no task has run", func(t *testing.T) {
		require.NoError(t, put(n2.Machine, faultsFile, `{"old_tcb": true}`))
		id := s.submit(t, "touch /lustre/ran\n")
		s.await(t, id, "PENDING", "n1:idle n2:drained")
		assert.Contains(t, s.controller.Run(t, "/usr/bin/sinfo", "-R", "-h", "-o", "%E"), "enclave:E235")
		s.controller.Run(t, "/usr/bin/scancel", id)
		require.NoError(t, put(n2.Machine, faultsFile, "{}"))
		_, ran := n1.Try("ls", siteMount+"/proj/digimed/ran")
		assert.False(t, ran)
		s.controller.Run(t, "/usr/bin/scontrol", "update", "NodeName=n2", "State=RESUME")
		s.await(t, id, "CANCELLED", idle)
		s.closed(t)
	})
}

// verify wants the job's receipt, and checks it without network and configuration.
func (s *site) verify(t *testing.T, id string) {
	t.Helper()
	require.Eventually(t, func() bool {
		_, ok := s.controller.Start(vmtest.Command{
			Argv: []string{"/usr/bin/enclave", "receipt", "export", id, "-o", "receipt-" + id}, UID: user, Dir: "/tmp",
		}).Wait(patience)
		return ok
	}, patience, time.Second)
	out := s.controller.Run(t, "unshare", "-n", "/usr/bin/enclave", "--config", "/nonexistent", "receipt", "verify", "--allow-simulated", "/tmp/receipt-"+id)
	for _, want := range []string{"SIMULATED", "n1, evidence (job", "n2, evidence (job", "closed again"} {
		assert.Contains(t, out, want)
	}
	assert.NotContains(t, out, "no report", "all nodes have told")
}

// again starts slurmd where it was killed.
func (n *node) again() error {
	return daemon(n.Machine, vmtest.Command{Argv: []string{"/usr/sbin/slurmd", "-D", "-N", n.Name}, Cgroup: slurmdGroup}, "pidof slurmd >/dev/null")
}
