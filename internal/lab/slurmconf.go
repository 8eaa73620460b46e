package lab

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/etc"
)

// slurmConf is the lab's slurm.conf: what any site has, and the samples of etc/ included.
func slurmConf(s Spec, b base, cgroups bool) string {
	track := "proctrack/linuxproc"
	if cgroups {
		track = "proctrack/cgroup"
	}
	mpi := "pmix"
	if !b.pmix {
		mpi = "pmi2"
	}
	lines := []string{
		"ClusterName=lab",
		"SlurmctldHost=n0",
		"SlurmUser=slurm",
		"AuthType=auth/munge",
		"CredType=cred/munge",
		"AuthInfo=cred_expire=5", // 22.05 holds a requeued job for as long
		"StateSaveLocation=/var/spool/slurmctld",
		"SlurmdSpoolDir=/var/spool/slurmd",
		"SlurmctldPidFile=/run/slurmctld.pid",
		"SlurmdPidFile=/run/slurmd.pid",
		"SlurmctldPort=6817",
		"SlurmdPort=6818",
		"ProctrackType=" + track,
		"TaskPlugin=task/none",
		"MpiDefault=" + mpi,
		"SelectType=select/cons_tres",
		"SlurmdParameters=config_overrides",
		"SlurmctldDebug=verbose",
		"SlurmdDebug=verbose",
		"SlurmdTimeout=60",
		"KillWait=2",
		"MinJobAge=600",
		"ReturnToService=0",
		"JobAcctGatherType=jobacct_gather/none",
		"AccountingStorageType=accounting_storage/slurmdbd",
		"AccountingStorageHost=n0",
		"PlugStackConfig=/etc/slurm/plugstack.conf",
		"Include /etc/slurm/slurm.conf.d/enclave.conf",
	}
	lines = append(lines, s.tokens()...)
	if s.namespaced() {
		lines = append(lines, "JobContainerType=job_container/tmpfs")
	}
	for _, h := range s.Hosts() {
		if h.Role == RoleEnclave || h.Role == RolePlain {
			lines = append(lines, fmt.Sprintf("NodeName=%s NodeHostname=%s NodeAddr=%s CPUs=2 RealMemory=512 State=UNKNOWN", s.NodeName(h), h.Name, h.Address.Addr()))
		}
	}
	lines = append(lines,
		"PartitionName=cpu Nodes="+s.hostlist("c", s.Plain)+" Default=YES MaxTime=INFINITE State=UP",
		"Include /etc/slurm/slurm.conf.d/partition.conf")
	return strings.Join(lines, "\n") + "\n"
}

// hostlist names count nodes as slurm.conf wants it: a range stands at the end of a name only.
func (s Spec) hostlist(prefix string, count int) string {
	if s.Domain == "" && count > 1 {
		return fmt.Sprintf("%s[1-%d]", prefix, count)
	}
	names := make([]string, count)
	for i := range names {
		names[i] = s.NodeName(Host{Name: fmt.Sprintf("%s%d", prefix, i+1)})
	}
	return strings.Join(names, ",")
}

func slurmdbdConf(s Spec) string {
	return strings.Join(append([]string{
		"AuthType=auth/munge",
		"DbdHost=n0",
		"DbdPort=6819",
		"SlurmUser=slurm",
		"StorageType=accounting_storage/mysql",
		"StorageHost=localhost",
		"StorageLoc=slurm_acct_db",
		"StorageUser=slurm",
		"StoragePass=lab",
		"PidFile=/run/slurmdbd.pid",
		"DebugLevel=info",
	}, s.tokens()...), "\n") + "\n"
}

func hostsFile(s Spec) string {
	b := strings.Builder{}
	b.WriteString("127.0.0.1 localhost\n::1 localhost\n")
	for _, h := range s.Hosts() {
		fmt.Fprintf(&b, "%s %s\n", h.Address.Addr(), strings.Join(slices.Compact([]string{h.Name, s.NodeName(h)}), " "))
	}
	return b.String()
}

func cgroupConf() string {
	return "CgroupMountpoint=/sys/fs/cgroup\nCgroupPlugin=cgroup/v1\nConstrainCores=no\nConstrainRAMSpace=no\n"
}

// sample reads a file of etc/.
func sample(name string) (string, error) {
	b, err := fs.ReadFile(etc.Samples, name)
	if err != nil {
		return "", fmt.Errorf("read sample: %w", err)
	}
	return string(b), nil
}

// partitionConf is the sample with the lab's own nodes in it.
func partitionConf(s Spec) (string, error) {
	text, err := sample("slurm.conf.d/partition.conf")
	if err != nil {
		return "", err
	}
	const samplesNodes = "Nodes=n[1-2] "
	if !strings.Contains(text, samplesNodes) {
		return "", fmt.Errorf("read sample slurm.conf.d/partition.conf: no %q in it", samplesNodes)
	}
	return strings.Replace(text, samplesNodes, "Nodes="+s.hostlist("n", s.Nodes)+" ", 1), nil
}
