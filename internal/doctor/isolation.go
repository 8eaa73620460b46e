package doctor

import (
	"fmt"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/ground"
)

// viewScript is what Slurm runs in a job's new namespace.
const viewScript = "/usr/libexec/slurm-enclave/enclave-view"

// namespaceRelease is the one release whose namespaces the view was tried in.
const namespaceRelease = "24.11"

func isolationRules() []rule {
	return []rule{
		{name: "namespaces of jobs", code: ground.CodeContainer, judge: container},
		{name: "release of Slurm", code: "E324", judge: release},
	}
}

// container asks what the node's prolog asks: it would drain the node.
func container(s Site) verdict {
	if !s.Config.Storage.Namespaced() {
		return verdict{well: "storage.isolation is node, no job needs one"}
	}
	var nodes []string
	for _, p := range s.enclavePartitions() {
		v, _ := p.Get("Nodes")
		names, err := s.nodesOf(v.Text)
		if err != nil {
			return verdict{well: "the partition's nodes can't be read"} // exclusiveNodes says so
		}
		nodes = append(nodes, names...)
	}
	if r := ground.Container(s.Files, s.Conf.Path, viewScript, nodes); r != nil {
		return verdict{bad: r.Reason + ": no view could be made", fix: r.Fix}
	}
	return verdict{well: "job_container/tmpfs runs " + viewScript}
}

// release: before 24.11 Slurm has no script in the namespace and takes job_container.conf for broken;
// from 25.11 on another plugin makes namespaces.
func release(s Site) verdict {
	live := s.Live["slurm_version"]
	switch {
	case !s.Config.Storage.Namespaced():
		return verdict{well: "storage.isolation is node, any"}
	case live == "":
		return verdict{well: "slurmctld could not be asked"}
	case !strings.HasPrefix(live, namespaceRelease+"."):
		return verdict{
			bad: fmt.Sprintf("Slurm is %s, and storage.isolation: namespace is for %s", live, namespaceRelease),
			fix: "write in enclave.yaml: storage: {isolation: node}, or run Slurm " + namespaceRelease,
		}
	}
	return verdict{well: live}
}
