// Package doctor holds the ground rules of a site, each by name, and judges a site by them.
//
// A ground rule is something of slurm.conf, or of a file beside it, on which a promise rests:
// nodes that belong to one partition, a prolog on all nodes at once, a gate that is required.
// A broken one is told with its code, the file and line where it stands, and the line to write.
// The package reads what the caller hands it; it changes nothing and asks no daemon.
package doctor

import (
	"fmt"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ladder"
	"github.com/slurm-enclave/slurm-enclave/internal/slurmconf"
)

// Symptom is one line of `enclave doctor`.
type Symptom struct {
	Name   string        `json:"name"`
	Result ladder.Result `json:"result"`
	Code   enclave.Code  `json:"code,omitempty"`
	Reason string        `json:"reason"`
	Fix    string        `json:"fix,omitempty"`
}

// Files are files of this host. Read gives fs.ErrNotExist for one that is not there; Glob is
// glob(3), no match is no error; Secure is nil when nobody but root could have chosen what a
// path leads to; Hidden is nil for a directory that is root's and that nobody else may enter.
type Files interface {
	Read(name string) ([]byte, error)
	Glob(pattern string) ([]string, error)
	Secure(name string) error
	Hidden(name string) error
}

// Site is what the rules look at.
type Site struct {
	Config    config.Config
	Inventory config.Inventory // empty when it can't be read: said elsewhere
	Files     Files
	Conf      slurmconf.Conf

	// Live is what slurmctld runs with (scontrol show config), names in lower case; nil is not known.
	Live map[string]string

	// Node says that this host has the marker, Host is its name; "" is not known.
	Node bool
	Host string

	// Administrator is the AdminLevel of the account that enclaved runs as; "" is not known.
	Administrator string
}

// rule is one ground rule: it gives "" for a site that keeps it.
type rule struct {
	name  string
	code  enclave.Code
	warn  bool // the site works without, but worse
	node  bool // enclave nodes alone have it
	judge func(s Site) verdict
}

// verdict says how a site stands to a rule: bad is why it is broken, fix the line to write.
type verdict struct {
	well, bad, fix string

	soft bool // worth a warning only: the files may not tell all
}

// Examine judges a site by all rules, in the order in which an admin would set things up.
func Examine(s Site) []Symptom {
	var out []Symptom
	for _, r := range rules() {
		if r.node && !s.Node {
			continue
		}
		v := r.judge(s)
		switch {
		case v.bad == "":
			out = append(out, Symptom{Name: r.name, Result: ladder.Pass, Reason: v.well})
		case r.warn || v.soft:
			out = append(out, Symptom{Name: r.name, Result: ladder.Warn, Code: r.code, Reason: v.bad, Fix: v.fix})
		default:
			out = append(out, Symptom{Name: r.name, Result: ladder.Fail, Code: r.code, Reason: v.bad, Fix: v.fix})
		}
	}
	return out
}

func rules() []rule {
	var all []rule
	for _, group := range [][]rule{identityRules(), partitionRules(), prologRules(), schedulingRules(), accountingRules(), fileRules(), isolationRules(), hostRules(), firewallRules(), liveRules()} {
		all = append(all, group...)
	}
	return all
}

// where says where a setting stands, or that it does not.
func where(v slurmconf.Value, ok bool, key string) string {
	if !ok {
		return key + " is not set"
	}
	return fmt.Sprintf("%s has %s=%s", v.Where(), key, v.Text)
}

// write says what to write, and where: in place of the line there is, or in slurm.conf.
func (s Site) write(v slurmconf.Value, ok bool, line string) string {
	if ok {
		return fmt.Sprintf("write in %s: %s", v.Where(), line)
	}
	return fmt.Sprintf("add to %s: %s", s.Conf.Path, line)
}

// list are the words of a list with commas, in lower case.
func list(text string) []string {
	return strings.FieldsFunc(strings.ToLower(text), func(c rune) bool { return c == ',' })
}
