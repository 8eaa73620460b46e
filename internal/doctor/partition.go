package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/job"
	"github.com/slurm-enclave/slurm-enclave/internal/slurmconf"
)

func partitionRules() []rule {
	return []rule{
		{name: "enclave partitions", code: "E018", judge: partitionsExist},
		{name: "nodes of one partition", code: "E019", judge: exclusiveNodes},
		{name: "nodes in the inventory", code: "E039", judge: listedNodes},
		eachPartition("whole nodes", "E020", "OverSubscribe", "EXCLUSIVE",
			"two jobs of one user would share a fence, and one job's processes would be the other's", func(_ Site, v string) bool { return v == "EXCLUSIVE" }),
		eachPartition("no preemption", "E021", "PreemptMode", "OFF",
			"a suspended job keeps its tunnels and its view while another runs on its nodes", unpreempted),
		{name: "no enclave by default", code: "E056", warn: true, judge: noDefault},
		{name: "no preemption by QOS", code: "E046", warn: true, judge: byQOS},
		eachPartition("no root jobs", "E022", "DisableRootJobs", "YES",
			"a job of root would pass by fence and view", func(s Site, v string) bool {
				if v == "" {
					global, _ := s.Conf.Get("DisableRootJobs")
					v = strings.ToUpper(global.Text)
				}
				return v == "YES"
			}),
	}
}

// unpreempted: a partition that says nothing follows the cluster's PreemptMode, which is OFF when
// that says nothing either.
func unpreempted(s Site, v string) bool {
	if v == "" {
		global, _ := s.Conf.Get("PreemptMode")
		v = strings.ToUpper(global.Text)
	}
	return v == "" || v == "OFF"
}

// noDefault: a job whose user chose nothing gets whole nodes in an enclave, or is refused for want of a tenant.
func noDefault(s Site) verdict {
	for _, p := range s.enclavePartitions() {
		if v, ok := p.Get("Default"); ok && strings.EqualFold(v.Text, "YES") {
			return verdict{
				bad: fmt.Sprintf("partition %s: %s: every job that names no partition is an enclave's", p.Name, where(v, ok, "Default")),
				fix: "Default=YES belongs into another partition's line, not into that of " + p.Name,
			}
		}
	}
	return verdict{well: "Default=NO"}
}

// byQOS: with preempt/qos Slurm asks the QOS of the two jobs, and no partition. What is in them, slurm.conf does
// not tell. An enclave that is preempted by requeue or cancel is taken down as any other. Source: preempt_p_preemptable
// of preempt_qos.c; tried with 22.05 and 24.11.
func byQOS(s Site) verdict {
	const key = "PreemptType"
	v, ok := s.Conf.Get(key)
	if !ok || v.Text != "preempt/qos" {
		return verdict{well: "PreemptType is not preempt/qos"}
	}
	mode, on := s.Conf.Get("PreemptMode")
	if !on || strings.EqualFold(mode.Text, "OFF") {
		return verdict{well: "PreemptMode is OFF for the cluster"}
	}
	return verdict{
		bad: fmt.Sprintf("%s: PreemptMode=OFF of the enclave partitions does not count there, a QOS with Preempt= takes the nodes of their jobs (%s)", where(v, ok, key), where(mode, on, "PreemptMode")),
		fix: "sacctmgr modify qos NAME set Preempt= for those that may be used there, or write in " + v.Where() + ": PreemptType=preempt/partition_prio",
	}
}

// enclavePartitions are slurm.conf's lines of the enclave partitions.
func (s Site) enclavePartitions() []slurmconf.Section {
	var found []slurmconf.Section
	for _, p := range s.Conf.Sections("PartitionName") {
		if slices.Contains(s.Config.Partitions, p.Name) {
			found = append(found, p)
		}
	}
	return found
}

// eachPartition is a rule for a setting of every enclave partition; good gets it in upper case.
func eachPartition(name string, code enclave.Code, key, want, why string, good func(s Site, v string) bool) rule {
	return rule{name: name, code: code, judge: func(s Site) verdict {
		for _, p := range s.enclavePartitions() {
			v, ok := p.Get(key)
			if good(s, strings.ToUpper(v.Text)) {
				continue
			}
			at := fmt.Sprintf("partition %s (%s line %d) has no %s", p.Name, p.File, p.Line, key)
			if ok {
				at = fmt.Sprintf("partition %s: %s", p.Name, where(v, ok, key))
			}
			return verdict{
				bad: at + ": " + why,
				fix: fmt.Sprintf("write into the line PartitionName=%s, %s line %d: %s=%s", p.Name, p.File, p.Line, key, want),
			}
		}
		return verdict{well: key + "=" + want}
	}}
}

func partitionsExist(s Site) verdict {
	have := s.enclavePartitions()
	for _, name := range s.Config.Partitions {
		if !slices.ContainsFunc(have, func(p slurmconf.Section) bool { return p.Name == name }) {
			return verdict{
				bad: fmt.Sprintf("enclave.yaml names partition %s, %s has none of that name", name, s.Conf.Path),
				fix: fmt.Sprintf("add to %s: PartitionName=%s Nodes=... OverSubscribe=EXCLUSIVE PreemptMode=OFF DisableRootJobs=YES", s.Conf.Path, name),
			}
		}
	}
	return verdict{well: strings.Join(s.Config.Partitions, ",")}
}

// exclusiveNodes: a job of another partition would start on an enclave node without an enclave.
// The gate refuses it, and its user wonders.
func exclusiveNodes(s Site) verdict {
	ours := map[string]string{}
	for _, p := range s.enclavePartitions() {
		v, _ := p.Get("Nodes")
		names, err := s.nodesOf(v.Text)
		if err != nil {
			return verdict{bad: fmt.Sprintf("%s line %d: read Nodes of partition %s: %v", p.File, p.Line, p.Name, err), fix: "write a hostlist that Slurm reads"}
		}
		for _, n := range names {
			if first, twice := ours[n]; twice && first != p.Name {
				continue // two enclave partitions may share nodes
			}
			ours[n] = p.Name
		}
	}
	for _, p := range s.Conf.Sections("PartitionName") {
		if slices.Contains(s.Config.Partitions, p.Name) {
			continue
		}
		v, _ := p.Get("Nodes")
		names, err := s.nodesOf(v.Text)
		if err != nil {
			continue // another partition's Nodes are slurmctld's to refuse
		}
		for _, n := range names {
			if of, shared := ours[n]; shared {
				return verdict{
					bad: fmt.Sprintf("node %s is in partition %s (%s line %d) and in %s: jobs of %s would be refused on it by the gate", n, p.Name, p.File, p.Line, of, p.Name),
					fix: fmt.Sprintf("take %s out of Nodes of partition %s, %s line %d", n, p.Name, p.File, p.Line),
				}
			}
		}
	}
	return verdict{well: fmt.Sprintf("%d nodes, of the enclave partitions alone", len(ours))}
}

func listedNodes(s Site) verdict {
	if len(s.Inventory.Nodes) == 0 {
		return verdict{well: "no inventory to compare with"}
	}
	for _, p := range s.enclavePartitions() {
		v, _ := p.Get("Nodes")
		names, err := s.nodesOf(v.Text)
		if err != nil {
			return verdict{well: "the partition's nodes can't be read"} // exclusiveNodes says so
		}
		for _, n := range names {
			if _, ok := s.Inventory.Find(n); !ok {
				return verdict{
					bad: fmt.Sprintf("node %s of partition %s is not in the inventory: a job that gets it is refused", n, p.Name),
					fix: fmt.Sprintf("add %s to %s with its addresses, or take it out of Nodes in %s line %d", n, s.Config.Controller.Inventory, v.File, v.Line),
				}
			}
		}
	}
	return verdict{well: fmt.Sprintf("all of them are among its %d", len(s.Inventory.Nodes))}
}

// expand gives the nodes of a hostlist, a node set, or ALL.
func (s Site) expand(item string) ([]string, error) {
	if strings.EqualFold(item, "ALL") {
		var all []string
		for _, n := range s.Conf.Sections("NodeName") {
			names, err := job.Expand(n.Name)
			if err != nil {
				return nil, err
			}
			all = append(all, names...)
		}
		return all, nil
	}
	for _, set := range s.Conf.Sections("NodeSet") {
		if set.Name == item {
			return s.nodeSet(set)
		}
	}
	return job.Expand(item)
}

// nodeSet gives the nodes that a set names, and those that have its feature.
func (s Site) nodeSet(set slurmconf.Section) ([]string, error) {
	var found []string
	if v, ok := set.Get("Nodes"); ok {
		names, err := job.Expand(v.Text)
		if err != nil {
			return nil, err
		}
		found = names
	}
	feature, ok := set.Get("Feature")
	if !ok {
		return found, nil
	}
	for _, n := range s.Conf.Sections("NodeName") {
		has, ok := n.Get("Feature")
		if !ok {
			has, _ = n.Get("Features")
		}
		if !slices.Contains(list(has.Text), strings.ToLower(feature.Text)) {
			continue
		}
		names, err := job.Expand(n.Name)
		if err != nil {
			return nil, err
		}
		found = append(found, names...)
	}
	return found, nil
}

// splitHostlist splits at commas outside of brackets.
func splitHostlist(text string) []string {
	depth := 0
	return strings.FieldsFunc(text, func(c rune) bool {
		switch c {
		case '[':
			depth++
		case ']':
			depth--
		}
		return c == ',' && depth == 0
	})
}
