package ground

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/job"
	"github.com/slurm-enclave/slurm-enclave/internal/slurmconf"
)

// containerPlugin gives each job a mount namespace; of it 24.11 is the first release that runs a
// script in the namespace.
const containerPlugin = "job_container/tmpfs"

// Container is nil where Slurm gives each job on these nodes a mount namespace, makes the view in it by
// script before any task starts, and runs steps in it whole, the writers of their output included.
func Container(files Files, conf, script string, nodes []string) *enclave.Refusal {
	c, err := slurmconf.Read(files, conf)
	if err != nil {
		return broken(CodeUnread, "container", "correct slurm.conf", "%v", err)
	}
	if v, ok := c.Get("JobContainerType"); !ok || v.Text != containerPlugin {
		return noContainer(v, ok, conf, "JobContainerType", containerPlugin)
	}
	name := path.Join(path.Dir(conf), "job_container.conf")
	if err = files.Secure(name); err != nil {
		return broken(CodeContainer, "container", "write it, root's alone: the sample job_container.conf", "%v", err)
	}
	jc, err := slurmconf.Read(files, name)
	if err != nil {
		return broken(CodeUnread, "container", "correct job_container.conf", "%v", err)
	}
	missing := slices.Clone(nodes)
	for _, line := range jc.Records {
		of, err := appliesTo(line, nodes)
		if err != nil {
			return broken(CodeContainer, "container", "write a hostlist that Slurm reads", "%s: %v", line[0].Where(), err)
		}
		if len(of) == 0 {
			continue
		}
		missing = slices.DeleteFunc(missing, func(n string) bool { return slices.Contains(of, n) })
		if r := whole(jc, line, name, script); r != nil {
			return r
		}
	}
	if len(missing) > 0 {
		return broken(CodeContainer, "container", fmt.Sprintf("add to %s: BasePath=/var/spool/slurm-namespaces CloneNSScript=%s EntireStepInNS=true", name, script),
			"storage.isolation is namespace, and %s has no BasePath for %s", name, missing[0])
	}
	return nil
}

// appliesTo gives the nodes among ours for which a line of job_container.conf sets BasePath.
func appliesTo(line slurmconf.Record, nodes []string) ([]string, error) {
	if _, ok := line.Get("BasePath"); !ok {
		return nil, nil
	}
	if !strings.EqualFold(line[0].Key, "NodeName") {
		return nodes, nil
	}
	names, err := job.Expand(line[0].Text)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(nodes), func(n string) bool { return !slices.Contains(names, n) }), nil
}

// whole judges one line that sets BasePath. Slurm 24.11 takes CloneNSScript from such a line alone, and
// from behind BasePath: on a line of its own it is read and forgotten [tried].
func whole(jc slurmconf.Conf, line slurmconf.Record, name, script string) *enclave.Refusal {
	at := slices.IndexFunc(line, func(v slurmconf.Value) bool { return strings.EqualFold(v.Key, "BasePath") })
	if !path.IsAbs(line[at].Text) {
		return noContainer(line[at], true, name, "BasePath", "/var/spool/slurm-namespaces")
	}
	rest := line[at:]
	if strings.EqualFold(line[0].Key, "NodeName") {
		rest = line
	}
	if v, ok := rest.Get("CloneNSScript"); !ok || v.Text != script {
		return broken(CodeContainer, "container", fmt.Sprintf("write into the line with BasePath, %s, behind it: CloneNSScript=%s", line[at].Where(), script),
			"storage.isolation is namespace, and the line with BasePath (%s) does not run our script", line[at].Where())
	}
	v, ok := rest.Get("EntireStepInNS")
	if !ok {
		v, ok = jc.Get("EntireStepInNS")
	}
	if !slices.Contains([]string{"true", "yes", "1"}, strings.ToLower(v.Text)) {
		return noContainer(v, ok, name, "EntireStepInNS", "true")
	}
	return nil
}

func noContainer(v slurmconf.Value, ok bool, file, key, want string) *enclave.Refusal {
	if !ok {
		return broken(CodeContainer, "container", fmt.Sprintf("add to %s: %s=%s", file, key, want), "storage.isolation is namespace, and %s has no %s", file, key)
	}
	return broken(CodeContainer, "container", fmt.Sprintf("write in %s: %s=%s", v.Where(), key, want), "storage.isolation is namespace, and %s has %s=%s", v.Where(), key, v.Text)
}
