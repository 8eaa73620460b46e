package doctor

import (
	"fmt"
	"slices"
	"strings"
)

func schedulingRules() []rule {
	return []rule{
		{name: "refused jobs wait in the queue", code: "E029", judge: func(s Site) verdict {
			return s.holds("SchedulerParameters", "nohold_on_prolog_fail", "a job whose node was broken is held, and waits for an admin")
		}},
		{name: "requeue", code: "E040", warn: true, judge: func(s Site) verdict {
			v, ok := s.Conf.Get("JobRequeue")
			if ok && v.Text == "0" {
				return verdict{bad: where(v, ok, "JobRequeue") + ": a job whose node was broken, or that found enclaved away, ends and is not started again", fix: s.write(v, ok, "JobRequeue=1")}
			}
			return verdict{well: "JobRequeue=1"}
		}},
		{name: "processes of a job", code: "E041", warn: true, judge: func(s Site) verdict {
			const key = "ProctrackType"
			v, ok := s.Conf.Get(key)
			if ok && v.Text != "proctrack/cgroup" {
				return verdict{bad: where(v, ok, key) + ": a process that leaves its session outlives the job, until our epilog ends all that the user has on the node", fix: s.write(v, ok, key+"=proctrack/cgroup")}
			}
			return verdict{well: key + "=proctrack/cgroup"}
		}},
		{name: "job_submit plugin", code: "E032", judge: func(s Site) verdict {
			return s.holds("JobSubmitPlugins", "lua", "nothing pins partition, nodes and tenant when a job is submitted or changed")
		}},
	}
}

// holds judges a setting that is a list by one of its words, NAME or NAME=VALUE.
func (s Site) holds(key, word, why string) verdict {
	v, ok := s.Conf.Get(key)
	have := list(v.Text)
	if slices.ContainsFunc(have, func(w string) bool { return w == word || strings.HasPrefix(w, word+"=") }) {
		return verdict{well: fmt.Sprintf("%s has %s", key, word)}
	}
	line := key + "=" + word
	if ok {
		line = fmt.Sprintf("%s=%s,%s", key, v.Text, word)
	}
	return verdict{bad: fmt.Sprintf("%s, without %s %s", where(v, ok, key), word, why), fix: s.write(v, ok, line)}
}

// accountingRules: the tenant follows from the account, so nobody may name an account that is
// not his.
func accountingRules() []rule {
	return []rule{
		{name: "accounts are enforced", code: "E033", judge: func(s Site) verdict {
			const key = "AccountingStorageEnforce"
			v, ok := s.Conf.Get(key)
			words := list(v.Text)
			// slurm.conf(5): limits, qos, safe and wckeys imply associations; all is all but nojobs and nosteps.
			for _, w := range []string{"associations", "limits", "qos", "safe", "all", "1", "2"} {
				if slices.Contains(words, w) {
					return verdict{well: where(v, ok, key)}
				}
			}
			return verdict{
				bad: where(v, ok, key) + ": a user can name any account, and with it any tenant",
				fix: s.write(v, ok, key+"=associations"),
			}
		}},
		{name: "accounting database", code: "E034", judge: func(s Site) verdict {
			const key = "AccountingStorageType"
			v, ok := s.Conf.Get(key)
			if v.Text == "accounting_storage/slurmdbd" {
				return verdict{well: key + "=" + v.Text}
			}
			return verdict{
				bad: where(v, ok, key) + ": users have no accounts, so none has a tenant, and no verdict is kept",
				fix: s.write(v, ok, key+"=accounting_storage/slurmdbd"),
			}
		}},
		{name: "enclaved may administer", code: "E043", judge: func(s Site) verdict {
			switch s.Administrator {
			case "":
				return verdict{well: "not known here"}
			case "Administrator":
				return verdict{well: "AdminLevel=Administrator"}
			}
			return verdict{
				bad: fmt.Sprintf("the user that enclaved runs as has AdminLevel=%s: it can neither drain a node nor keep a verdict", s.Administrator),
				fix: "sacctmgr modify user enclave set adminlevel=Administrator",
			}
		}},
	}
}
