package doctor

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/job"
	"github.com/slurm-enclave/slurm-enclave/internal/slurmconf"
)

// ErrNoNodes is the error of a slurm.conf without a node: this is not the one that slurmd reads.
var ErrNoNodes = errors.New("it names no node")

// NodeName is the node of slurm.conf that a host is, as slurmd finds out when it is not told (-N): the one
// whose NodeHostname, or NodeName where none is set, is the host's name up to the first dot, or else all
// of it. Source: slurm.conf(5), NodeHostname; _read_config of slurmd.
func NodeName(c slurmconf.Conf, host string) (string, error) {
	nodes := c.Sections("NodeName")
	if len(nodes) == 0 {
		return "", fmt.Errorf("find %s in %s: %w", host, c.Path, ErrNoNodes)
	}
	short, _, _ := strings.Cut(host, ".")
	for _, wanted := range slices.Compact([]string{short, host}) {
		for _, line := range nodes {
			node, err := hostOf(line, wanted)
			if node != "" || err != nil {
				return node, err
			}
		}
	}
	return "", fmt.Errorf("find %s in %s: it is neither a NodeHostname nor a NodeName there", host, c.Path)
}

// hostOf is the node of one line that has this host, "" for none.
func hostOf(line slurmconf.Section, host string) (string, error) {
	names, err := expandAll(line.Name)
	if err != nil {
		return "", fmt.Errorf("%s line %d: %w", line.File, line.Line, err)
	}
	hosts := names
	if v, ok := line.Get("NodeHostname"); ok {
		if hosts, err = expandAll(v.Text); err != nil {
			return "", fmt.Errorf("%s: NodeHostname: %w", v.Where(), err)
		}
	}
	at := slices.Index(hosts, host)
	if at < 0 || at >= len(names) {
		return "", nil
	}
	return names[at], nil
}

// expandAll is job.Expand for slurm.conf, where several nodes may be on one host: that host is named more than once.
func expandAll(list string) ([]string, error) {
	var all []string
	for _, item := range splitHostlist(list) {
		names, err := job.Expand(item)
		if err != nil {
			return nil, err
		}
		all = append(all, names...)
	}
	return all, nil
}
