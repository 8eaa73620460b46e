package doctor

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/config"
)

// marker makes a host an enclave node.
const marker = "/etc/slurm-enclave/enclave-node"

// hostRules are for what a host itself has: an enclave node, or the controller.
func hostRules() []rule {
	return []rule{
		{name: "the marker is root's", code: "E055", node: true, judge: func(s Site) verdict {
			if err := s.Files.Secure(marker); err != nil {
				return verdict{bad: err.Error() + ": whoever takes the marker away opens the gate for every job", fix: "chown root:root " + marker + " and its directories, and chmod go-w them"}
			}
			return verdict{well: marker}
		}},
		{name: "this node's name", code: "E048", node: true, judge: ownName},
		{name: "closed at boot", code: "E051", node: true, judge: closedAtBoot},
		{name: "the file system is hidden", code: "E301", node: true, judge: hidden},
		{name: "sockets that no tunnel carries", code: "E052", warn: true, node: true, judge: keptOut},
		{name: "core dumps", code: "E053", warn: true, node: true, judge: coreDumps},
		{name: "slurmrestd", code: "E054", judge: restDriver},
	}
}

// ownName: a node that slurm.conf does not know by this host's name can't enrol, and slurmd does not start.
func ownName(s Site) verdict {
	if s.Host == "" {
		return verdict{well: "not known"}
	}
	name, err := NodeName(s.Conf, s.Host)
	if err != nil {
		return verdict{bad: err.Error(), fix: fmt.Sprintf("write in the node's line of %s: NodeHostname=%s; a slurmd that is told its name (-N) enrols with enclave node enrol --request --node NAME", s.Conf.Path, s.Host)}
	}
	for _, p := range s.enclavePartitions() {
		v, _ := p.Get("Nodes")
		names, err := s.nodesOf(v.Text)
		if err == nil && slices.Contains(names, name) {
			return verdict{well: fmt.Sprintf("%s, of partition %s", name, p.Name)}
		}
	}
	return verdict{
		bad: fmt.Sprintf("%s has the marker, and node %s is in no enclave partition: the gate refuses every job that it gets", s.Host, name),
		fix: fmt.Sprintf("add %s to Nodes of an enclave partition in %s, or remove %s", name, s.Conf.Path, marker),
	}
}

// closedAtBoot: without the unit, slurmd takes a job on a node that a crash has left open.
func closedAtBoot(s Site) verdict {
	const unit = "enclave-host.service"
	if booted, err := s.Files.Glob("/run/systemd/system"); err != nil || len(booted) == 0 {
		return verdict{well: "systemd does not run here: whatever starts slurmd must run enclave host close before it"}
	}
	required, err := s.Files.Glob("/etc/systemd/system/slurmd.service.requires/" + unit)
	if err == nil && len(required) > 0 {
		return verdict{well: "slurmd.service requires " + unit}
	}
	return verdict{bad: unit + " is not enabled: slurmd would start on a node that nobody has closed after a crash", fix: "systemctl enable " + unit}
}

// hidden: what lies below is the whole file system, all tenants'. With Lustre's own mounts there is nothing to hide.
func hidden(s Site) verdict {
	if s.Config.Storage.Backend != "bind" {
		return verdict{well: "storage.backend is " + s.Config.Storage.Backend + ": it is mounted for each job, and only in part"}
	}
	parent := path.Dir(s.Config.Storage.Source)
	if err := s.Files.Hidden(parent); err != nil {
		return verdict{bad: err.Error() + ": users reach all tenants' data through it", fix: "chown root:root " + parent + " && chmod 0700 " + parent}
	}
	return verdict{well: parent + " is root's alone"}
}

// keptOut: a user's socket() loads a module that is not kept out.
func keptOut(s Site) verdict {
	kept := map[string]bool{}
	for _, dir := range []string{"/etc", "/run", "/usr/lib", "/lib"} {
		names, _ := s.Files.Glob(path.Join(dir, "modprobe.d", "*.conf")) // the pattern is a good one
		for _, name := range names {
			for _, l := range s.statements(name, 0) {
				if w := strings.Fields(l.Text); len(w) >= 3 && w[0] == "install" && slices.Contains([]string{"false", "true"}, path.Base(w[2])) {
					kept[w[1]] = true
				}
			}
		}
	}
	var open []string
	for _, family := range config.Families() {
		if !kept[family] && !slices.Contains(s.Config.Network.Families, family) {
			open = append(open, family)
		}
	}
	if len(open) > 0 {
		return verdict{
			bad: fmt.Sprintf("a user's socket() may load %s, which the prolog takes for a broken node (E208)", strings.Join(open, ", ")),
			fix: "copy modprobe.d/slurm-enclave.conf to /etc/modprobe.d, then update-initramfs -u (or dracut -f) and reboot",
		}
	}
	return verdict{well: "are kept out, or allowed by network.families"}
}

// coreDumps: a handler on the host would keep a job's memory on the node's disk.
func coreDumps(s Site) verdict {
	b, err := s.Files.Read("/proc/sys/kernel/core_pattern")
	if err != nil {
		return verdict{well: "not known"}
	}
	if pattern := strings.TrimSpace(string(b)); strings.HasPrefix(pattern, "|") || strings.Contains(pattern, "/") {
		return verdict{bad: "kernel.core_pattern is " + pattern + ": what a job had in memory would stay on the node", fix: "copy sysctl.d/slurm-enclave.conf to /etc/sysctl.d, then sysctl --system; disable the handler (systemd-coredump, apport, abrt)"}
	}
	return verdict{well: "stay where the job can write"}
}

var tokens = regexp.MustCompile(`(?i)(^|,)auth/jwt(,|$)`)

// restDriver: enclaved has to reach slurmrestd, and slurmctld to believe its token.
func restDriver(s Site) verdict {
	rest := s.Config.Slurm.Rest
	switch {
	case s.Node:
		return verdict{well: "enclaved alone asks it, on the controller"}
	case s.Config.Slurm.Driver != "rest":
		return verdict{well: "slurm.driver is " + s.Config.Slurm.Driver}
	case rest.Socket != "":
		if found, err := s.Files.Glob(rest.Socket); err != nil || len(found) == 0 {
			return verdict{bad: "nobody has made slurm.rest.socket " + rest.Socket, fix: "run as enclaved's user: slurmrestd -a rest_auth/local unix:" + rest.Socket}
		}
		return verdict{well: rest.Socket}
	}
	v, ok := s.Conf.Get("AuthAltTypes")
	if !tokens.MatchString(v.Text) {
		return verdict{bad: where(v, ok, "AuthAltTypes") + ": slurmctld takes no token", fix: s.write(v, ok, "AuthAltTypes=auth/jwt") + ", AuthAltParameters=jwt_key=FILE below it, both in slurmdbd.conf, too"}
	}
	b, err := s.Files.Read(rest.TokenFile)
	if err == nil && strings.TrimSpace(string(b)) == "" {
		err = errors.New(rest.TokenFile + " is empty")
	}
	if err != nil {
		return verdict{bad: "there is no token: " + err.Error(), fix: fmt.Sprintf("umask 377; scontrol token username=%s lifespan=2592000 >%s, and chown it to enclaved's user", rest.User, rest.TokenFile)}
	}
	return verdict{well: rest.URL}
}
