package doctor

import (
	"fmt"
	"net"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/slurmconf"
)

// firewallRules judge what the node's own firewall does to an enclave beside it, as far as its files tell. What
// another program (firewalld, a script) puts into the kernel is seen when it is done: the keeper ends the job.
func firewallRules() []rule {
	return []rule{
		{name: "nobody flushes nftables", code: "E049", warn: true, node: true, judge: flushes},
		{name: "answers that conntrack does not see", code: "E050", node: true, judge: untracked},
	}
}

// statement is a line of a firewall's file without its comment.
type statement struct {
	slurmconf.Value // Text, File, Line
}

// firewallFiles are where distributions keep the rules that are loaded at boot, by the unit that loads them.
// Sources: nftables.service of Debian and of Fedora; iptables-persistent; iptables-services.
func firewallFiles() map[string][]string {
	return map[string][]string{
		"nftables.service":             {"/etc/nftables.conf", "/etc/sysconfig/nftables.conf"},
		"netfilter-persistent.service": {"/etc/iptables/rules.v4", "/etc/iptables/rules.v6"},
		"iptables.service":             {"/etc/sysconfig/iptables"},
		"ip6tables.service":            {"/etc/sysconfig/ip6tables"},
	}
}

// enabled says whether systemd starts a unit at boot.
func (s Site) enabled(unit string) bool {
	for _, kind := range []string{"wants", "requires"} {
		if found, err := s.Files.Glob("/etc/systemd/system/*." + kind + "/" + unit); err == nil && len(found) > 0 {
			return true
		}
	}
	return false
}

// firewall reads the files of the units that are enabled, and what they include.
func (s Site) firewall() []statement {
	var all []statement
	for _, unit := range []string{"nftables.service", "netfilter-persistent.service", "iptables.service", "ip6tables.service"} {
		if s.enabled(unit) {
			for _, name := range firewallFiles()[unit] {
				all = append(all, s.statements(name, 0)...)
			}
		}
	}
	return all
}

var inclusion = regexp.MustCompile(`^\s*include\s+"([^"]+)"`)

func (s Site) statements(name string, depth int) []statement {
	text, err := s.Files.Read(name)
	if err != nil || depth > 4 {
		return nil // what nft can't read either it does not load
	}
	var all []statement
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		code, _, _ := strings.Cut(line, "#")
		if m := inclusion.FindStringSubmatch(code); m != nil {
			pattern := m[1]
			if !path.IsAbs(pattern) {
				pattern = path.Join("/etc", pattern) // nft's default include path
			}
			found, _ := s.Files.Glob(pattern) // a bad pattern matches nothing
			for _, f := range found {
				all = append(all, s.statements(f, depth+1)...)
			}
			continue
		}
		if code = strings.TrimSpace(code); code != "" {
			all = append(all, statement{slurmconf.Value{Text: code, File: name, Line: number}})
		}
	}
	return all
}

var flush = regexp.MustCompile(`\bflush\s+ruleset\b`)

// flushes: Debian's nftables.conf begins with "flush ruleset", and its unit ends with it, so that an admin's
// reload or restart takes an enclave's fence away: the job on that node is ended.
func flushes(s Site) verdict {
	const unit = "nftables.service"
	if !s.enabled(unit) {
		return verdict{well: unit + " is not enabled"}
	}
	for _, l := range s.firewall() {
		if flush.MatchString(l.Text) {
			return verdict{
				bad: l.Where() + " has flush ruleset: systemctl reload nftables would end the jobs on this node (E426)",
				fix: fmt.Sprintf("write in %s, for each table of yours: table inet filter; delete table inet filter", l.Where()),
			}
		}
	}
	if stop := s.stops(unit); stop != "" {
		return verdict{
			bad: stop + ": systemctl restart nftables would end the jobs on this node (E426)",
			fix: `write into /etc/systemd/system/nftables.service.d/slurm-enclave.conf: [Service], and below it ExecStop= with nothing behind it`,
		}
	}
	return verdict{well: "neither the file nor the unit"}
}

// stops says where a unit flushes when it is stopped, "" for nowhere: an empty ExecStop= takes back those before.
func (s Site) stops(unit string) string {
	var names []string
	for _, dir := range []string{"/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"} {
		if _, err := s.Files.Read(path.Join(dir, unit)); err == nil {
			names = append(names, path.Join(dir, unit))
			break
		}
	}
	for _, dir := range []string{"/usr/lib/systemd/system", "/etc/systemd/system"} {
		found, _ := s.Files.Glob(path.Join(dir, unit+".d", "*.conf")) // the pattern is a good one
		names = append(names, found...)
	}
	at := ""
	for _, name := range names {
		for _, l := range s.statements(name, 0) {
			switch key, value, _ := strings.Cut(l.Text, "="); {
			case strings.TrimSpace(key) != "ExecStop":
			case strings.TrimSpace(value) == "":
				at = ""
			case flush.MatchString(value):
				at = l.Where() + " has " + l.Text
			}
		}
	}
	return at
}

// untracked: while a job runs, Slurm's packets are not tracked, so that a user who fills conntrack harms himself
// alone. A firewall that lets answers in by their state alone throws them away.
func untracked(s Site) verdict {
	const fix = "ct state { established, related, untracked } accept"
	var established, closed *statement
	accepted := false
	all := s.firewall()
	for i, l := range all {
		switch {
		case drops(l.Text):
			return verdict{bad: l.Where() + " drops untracked packets: Slurm's are untracked while a job runs, so its steps would hang", fix: fmt.Sprintf("take it out of %s, and write before it: %s", l.Where(), fix)}
		case accepts(l.Text, "untracked"):
			accepted = true
		case accepts(l.Text, "established"):
			established = &all[i]
		case shuts(l.Text):
			closed = &all[i]
		}
	}
	switch {
	case len(all) == 0:
		return verdict{well: "no firewall of nftables or iptables is loaded at boot"}
	case accepted, closed == nil, established == nil, s.named(all):
		return verdict{well: "are let in"}
	}
	return verdict{
		bad:  fmt.Sprintf("%s lets answers in by their state and %s no others: Slurm's are untracked while a job runs, so its steps would hang", established.Where(), closed.Where()),
		fix:  fmt.Sprintf("write in %s: %s", established.Where(), fix),
		soft: true, // a rule by address may let them in
	}
}

var (
	mapped     = regexp.MustCompile(`(?i)\b(untracked|established)\s*:\s*(\w+)`)
	stateOf    = regexp.MustCompile(`(?i)(ct\s+state|--(ct)?state)\s`)
	acceptance = regexp.MustCompile(`(?i)\baccept\b`)
	rejection  = regexp.MustCompile(`(?i)\b(drop|reject)\b`)
	nothing    = regexp.MustCompile(`(?i)(hook\s+input.*policy\s+drop|^\s*:INPUT\s+DROP|^(counter\s+)?(drop|reject)\b|^-A\s+INPUT\s+-j\s+(DROP|REJECT))`)
)

// word says whether a rule is about packets in this state, whose fate the rule itself tells.
func word(text, state string) bool {
	return stateOf.MatchString(text) && !strings.Contains(text, "!") && regexp.MustCompile(`(?i)\b`+state+`\b`).MatchString(text)
}

func fate(text, state string) string {
	for _, m := range mapped.FindAllStringSubmatch(text, -1) {
		if strings.EqualFold(m[1], state) {
			return strings.ToLower(m[2])
		}
	}
	return ""
}

func drops(text string) bool {
	f := fate(text, "untracked")
	return f == "drop" || f == "reject" || f == "" && word(text, "untracked") && rejection.MatchString(text)
}

func accepts(text, state string) bool {
	f := fate(text, state)
	return f == "accept" || f == "" && word(text, state) && acceptance.MatchString(text)
}

// shuts is a rule or a policy after which nothing else gets in.
func shuts(text string) bool { return nothing.MatchString(text) }

// named says whether the ports of Slurm and of the verifier are let in by their numbers.
func (s Site) named(all []statement) bool {
	ports := []int{int(s.Config.Slurm.Slurmctld.Port), int(s.Config.Slurm.SlurmdPort)}
	if _, port, err := net.SplitHostPort(s.Config.Verifier.Address); err == nil {
		if n, err := strconv.Atoi(port); err == nil {
			ports = append(ports, n)
		}
	}
	for _, p := range ports {
		number := regexp.MustCompile(`\b` + strconv.Itoa(p) + `\b`)
		if !slices.ContainsFunc(all, func(l statement) bool { return acceptance.MatchString(l.Text) && number.MatchString(l.Text) }) {
			return false
		}
	}
	return true
}
