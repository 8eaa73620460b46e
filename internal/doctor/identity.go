package doctor

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// same is a rule that a setting of slurm.conf is what enclave.yaml says it is.
func same(name string, code enclave.Code, key, ours, standard string, theirs func(Site) string) rule {
	return rule{name: name, code: code, judge: func(s Site) verdict {
		v, ok := s.Conf.Get(key)
		have, want := standard, theirs(s)
		if ok {
			have = v.Text
		}
		if have == want {
			return verdict{well: key + "=" + have}
		}
		return verdict{
			bad: fmt.Sprintf("%s, enclave.yaml has %s: %s", where(v, ok, key), ours, want),
			fix: fmt.Sprintf("write into enclave.yaml: %s: %s", ours, have),
		}
	}}
}

// identityRules: enclave.yaml and slurm.conf must speak of the same cluster.
func identityRules() []rule {
	return []rule{
		same("cluster name", "E017", "ClusterName", "cluster", "", func(s Site) string { return s.Config.Cluster }),
		same("slurm user", "E036", "SlurmUser", "controller.slurm_user", "root", func(s Site) string { return s.Config.Controller.SlurmUser }),
		same("slurmctld port", "E038", "SlurmctldPort", "slurm.slurmctld.port", "6817", func(s Site) string { return strconv.Itoa(int(s.Config.Slurm.Slurmctld.Port)) }),
		same("slurmd port", "E038", "SlurmdPort", "slurm.slurmd_port", "6818", func(s Site) string { return strconv.Itoa(int(s.Config.Slurm.SlurmdPort)) }),
		{name: "srun ports", code: "E028", judge: srunPorts},
	}
}

// srunPorts: the fence opens these ports. Inside the ephemeral range a job's own connection could
// take one of them, and srun would wait in vain.
func srunPorts(s Site) verdict {
	const key = "SrunPortRange"
	v, ok := s.Conf.Get(key)
	want := s.Config.Slurm.SrunPorts.String()
	fix := s.write(v, ok, key+"="+want)
	if !ok {
		return verdict{bad: key + " is not set: srun listens on any port, and the fence lets nobody reach it", fix: fix}
	}
	if v.Text != want {
		return verdict{bad: fmt.Sprintf("%s, enclave.yaml has slurm.srun_ports: %s", where(v, ok, key), want), fix: fix}
	}
	p := s.Config.Slurm.SrunPorts
	if first, last, ok := s.ephemeral(); ok && int(p.First) <= last && int(p.Last) >= first {
		return verdict{
			bad: fmt.Sprintf("%s lies in net.ipv4.ip_local_port_range (%d-%d): a connection of the job's own may take srun's port", want, first, last),
			fix: fmt.Sprintf("choose ports above %d for SrunPortRange and slurm.srun_ports, or make the range smaller with sysctl", last),
		}
	}
	return verdict{well: key + "=" + want}
}

// ephemeral are the ports that the kernel gives to connections, ip-sysctl of the kernel's documentation.
func (s Site) ephemeral() (first, last int, ok bool) {
	b, err := s.Files.Read("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return 0, 0, false
	}
	n, err := fmt.Sscan(string(b), &first, &last)
	return first, last, err == nil && n == 2
}

// nodesOf expands the Nodes of the site's partitions and node sets.
func (s Site) nodesOf(text string) ([]string, error) {
	var out []string
	for _, item := range splitHostlist(text) {
		names, err := s.expand(item)
		if err != nil {
			return nil, err
		}
		out = append(out, names...)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
