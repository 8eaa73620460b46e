package lab

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// file is one file of the layer that all hosts share.
type file struct {
	path  string
	text  string
	mode  os.FileMode
	owner string // "" is root
}

// The service account of enclaved. It is below UID_MIN, as system users are.
const (
	enclaveUser = "enclave"
	enclaveUID  = 985
)

// layerFiles are the files that make this machine's root into a lab host's.
func layerFiles(s Spec, b base, cgroups bool, passwd, group string) ([]file, error) {
	partition, err := partitionConf(s)
	if err != nil {
		return nil, err
	}
	key := make([]byte, 1024)
	_, _ = rand.Read(key) // crypto/rand.Read never fails
	files := []file{
		{path: "etc/passwd", text: addUsers(passwd), mode: 0o644},
		{path: "etc/group", text: addGroups(group), mode: 0o644},
		{path: "etc/subuid", text: subordinates(), mode: 0o644},
		{path: "etc/subgid", text: subordinates(), mode: 0o644},
		{path: "etc/hosts", text: hostsFile(s), mode: 0o644},
		{path: "etc/resolv.conf", text: "", mode: 0o644},
		{path: "etc/munge/munge.key", text: string(key), mode: 0o400, owner: "munge"},
		{path: "etc/slurm/slurm.conf", text: slurmConf(s, b, cgroups), mode: 0o644},
		{path: "etc/slurm/cgroup.conf", text: cgroupConf(), mode: 0o644},
		{path: "etc/slurm/slurmdbd.conf", text: slurmdbdConf(s), mode: 0o600, owner: "slurm"},
		{path: "etc/slurm/slurm.conf.d/partition.conf", text: partition, mode: 0o644},
	}
	if s.namespaced() {
		containers := file{path: "etc/slurm/job_container.conf", mode: 0o644}
		if containers.text, err = sample("job_container.conf"); err != nil {
			return nil, err
		}
		files = append(files, containers)
	}
	for name, to := range map[string]file{
		"slurm.conf.d/enclave.conf": {path: "etc/slurm/slurm.conf.d/enclave.conf", mode: 0o644},
		"prolog-slurmctld":          {path: "etc/slurm-enclave/prolog-slurmctld", mode: 0o755},
		"epilog-slurmctld":          {path: "etc/slurm-enclave/epilog-slurmctld", mode: 0o755},
	} {
		if to.text, err = sample(name); err != nil {
			return nil, err
		}
		// A requeued job of the lab need not wait for the backfill scheduler's half minute.
		to.text = strings.Replace(to.text, "nohold_on_prolog_fail", "nohold_on_prolog_fail,bf_interval=1", 1)
		// X11 forwarding is for the test that shows what it sends in the clear.
		to.text = strings.Replace(to.text, "PrologFlags=Alloc,Contain", "PrologFlags=Alloc,Contain,X11", 1)
		files = append(files, to)
	}
	return files, nil
}

// subordinates is /etc/subuid: every user may have containers with ids of their own.
func subordinates() string {
	b := strings.Builder{}
	for i, u := range Users() {
		fmt.Fprintf(&b, "%s:%d:65536\n", u.Name, 100000+65536*i)
	}
	return b.String()
}

func addUsers(passwd string) string {
	b := strings.Builder{}
	b.WriteString(strings.TrimRight(passwd, "\n") + "\n")
	add := func(name string, uid uint32, home string) {
		if !hasEntry(passwd, name) {
			fmt.Fprintf(&b, "%s:*:%d:%d:%s:%s:/bin/bash\n", name, uid, uid, name, home) // an x would want an entry in /etc/shadow, without which su is refused
		}
	}
	add(enclaveUser, enclaveUID, "/nonexistent")
	for _, u := range Users() {
		add(u.Name, u.UID, "/home/"+u.Name)
	}
	return b.String()
}

func addGroups(group string) string {
	b := strings.Builder{}
	b.WriteString(strings.TrimRight(group, "\n") + "\n")
	add := func(name string, gid uint32) {
		if !hasEntry(group, name) {
			fmt.Fprintf(&b, "%s:x:%d:\n", name, gid)
		}
	}
	add(enclaveUser, enclaveUID)
	for _, u := range Users() {
		add(u.Name, u.UID)
	}
	return b.String()
}

func hasEntry(table, name string) bool {
	for line := range strings.SplitSeq(table, "\n") {
		if strings.HasPrefix(line, name+":") {
			return true
		}
	}
	return false
}

// writeLayer writes the files below root; passwd knows their owners.
func writeLayer(root string, files []file, passwd string) error {
	for _, f := range files {
		path := filepath.Join(root, f.path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(f.text), f.mode); err != nil {
			return err
		}
		if err := os.Chmod(path, f.mode); err != nil {
			return err
		}
		if f.owner == "" {
			continue
		}
		if err := give(path, f.owner, passwd); err != nil {
			return err
		}
	}
	return nil
}

// give makes the user the owner of path.
func give(path, name, passwd string) error {
	for line := range strings.SplitSeq(passwd, "\n") {
		fields := strings.Split(line, ":")
		if fields[0] != name || len(fields) < 4 {
			continue
		}
		uid, errUID := strconv.Atoi(fields[2])
		gid, errGID := strconv.Atoi(fields[3])
		if err := errors.Join(errUID, errGID); err != nil {
			return fmt.Errorf("look up user %s: %w", name, err)
		}
		return os.Chown(path, uid, gid)
	}
	return fmt.Errorf("look up user %s: the hosts' passwd has none", name)
}
