package doctor

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/slurmconf"
)

const (
	teardownSeconds = 30 // that a node's epilog may take
	settleSeconds   = 60 // that EpilogSlurmctld may take: half of it waits for enclaved, half for Slurm
)

func prologRules() []rule {
	return []rule{
		{name: "prolog flags", code: "E023", judge: prologFlags},
		{name: "prolog flags that break it", code: "E024", judge: harmfulFlags},
		{name: "prolog of the nodes", code: "E030", judge: func(s Site) verdict { return s.script("Prolog", "enclave-prolog") }},
		{name: "epilog of the nodes", code: "E030", judge: func(s Site) verdict { return s.script("Epilog", "enclave-epilog") }},
		{name: "prolog of slurmctld", code: "E031", judge: func(s Site) verdict { return s.wrapper("PrologSlurmctld", "enclave-prolog") }},
		{name: "epilog of slurmctld", code: "E031", judge: func(s Site) verdict { return s.wrapper("EpilogSlurmctld", "enclave-epilog") }},
		{name: "prolog timeout", code: "E025", judge: prologTimeout},
		atLeast("message timeout", "E026", "MessageTimeout", 10, 30, "steps give up before the prolog is through"),
		atLeast("batch start timeout", "E027", "BatchStartTimeout", 10, 120, "slurmctld gives a batch job up while its nodes still prove themselves"),
	}
}

// prologFlags: without Alloc the prolog waits for a node's first step, and the barrier for nodes
// that never have one. Contain gives ssh and X11 a step to be adopted into.
func prologFlags(s Site) verdict {
	const key = "PrologFlags"
	v, ok := s.Conf.Get(key)
	have := list(v.Text)
	missing := slices.DeleteFunc([]string{"Alloc", "Contain"}, func(f string) bool { return slices.Contains(have, strings.ToLower(f)) })
	if len(missing) == 0 {
		return verdict{well: key + "=" + v.Text}
	}
	all := append(slices.Clone(missing), v.Text)
	if !ok {
		all = missing
	}
	return verdict{
		bad: fmt.Sprintf("%s: it lacks %s; a node without a first step would never prove itself", where(v, ok, key), strings.Join(missing, " and ")),
		fix: s.write(v, ok, key+"="+strings.Join(all, ",")),
	}
}

// harmfulFlags: Serial lets one prolog at a time run on a node and deadlocks at the barrier,
// NoHold lets tasks start before it, RunInJob runs it where it can't mount.
func harmfulFlags(s Site) verdict {
	const key = "PrologFlags"
	v, ok := s.Conf.Get(key)
	bad := []string{"serial", "nohold", "runinjob"}
	for _, f := range list(v.Text) {
		if !slices.Contains(bad, f) {
			continue
		}
		rest := slices.DeleteFunc(strings.Split(v.Text, ","), func(w string) bool { return slices.Contains(bad, strings.ToLower(w)) })
		return verdict{
			bad: fmt.Sprintf("%s: with %s the nodes of a job wait for each other, or tasks do not wait for them", where(v, ok, key), f),
			fix: s.write(v, ok, key+"="+strings.Join(rest, ",")),
		}
	}
	return verdict{well: "neither Serial nor NoHold nor RunInJob"}
}

// script: a node's Prolog may stand more than once, or be a pattern; ours has to be among them.
func (s Site) script(key, program string) verdict {
	all := s.Conf.All(key)
	if len(all) == 0 {
		return verdict{bad: key + " is not set: no enclave is ever opened or taken down", fix: s.write(slurmconf.Value{}, false, key+"=/usr/libexec/slurm-enclave/"+program)}
	}
	for _, v := range all {
		for _, name := range s.matches(v.Text) {
			if path.Base(name) == program || s.calls(name, program) {
				return verdict{well: v.Where() + " runs " + name}
			}
		}
	}
	return verdict{
		bad: fmt.Sprintf("%s: neither it nor a script that it names runs %s", where(all[len(all)-1], true, key), program),
		fix: "call /usr/libexec/slurm-enclave/" + program + " from it and pass its exit status on",
	}
}

// wrapper: slurmctld's scripts also have to name the enclave partitions, or the hook takes every
// job for one of others.
func (s Site) wrapper(key, program string) verdict {
	v, ok := s.Conf.Get(key)
	sample := "/etc/slurm-enclave/" + strings.Replace(program, "enclave-", "", 1) + "-slurmctld"
	if !ok {
		return verdict{bad: key + " is not set: no job is registered, and every one is refused", fix: s.write(v, ok, key+"="+sample)}
	}
	for _, name := range s.matches(v.Text) {
		if !s.calls(name, program) {
			continue
		}
		text, _ := s.Files.Read(name)
		for _, p := range s.Config.Partitions {
			if !slices.Contains(strings.FieldsFunc(string(text), func(c rune) bool { return strings.ContainsRune(" \t\n=,\"'", c) }), p) {
				return verdict{
					bad: fmt.Sprintf("%s does not name partition %s: its jobs are not registered, and every one is refused", name, p),
					fix: fmt.Sprintf("write in %s: exec /usr/libexec/slurm-enclave/%s --partition %s", name, program, strings.Join(s.Config.Partitions, " --partition ")),
				}
			}
		}
		return verdict{well: v.Where() + " runs " + name}
	}
	return verdict{
		bad: fmt.Sprintf("%s: it does not run %s", where(v, ok, key), program),
		fix: s.write(v, ok, key+"="+sample) + ", or call that from your own",
	}
}

// prologTimeout: since 25.05 PrologTimeout and EpilogTimeout each take the place of PrologEpilogTimeout for their
// own; older releases know the common one alone. Source: slurm.conf(5) of 26.05.
func prologTimeout(s Site) verdict {
	const common = "PrologEpilogTimeout"
	barrier := int(s.Config.Limits.BarrierSeconds)
	good := max(120, barrier+teardownSeconds+30)
	var told []string
	for _, c := range []struct {
		key   string
		least int
		why   string
	}{
		{"PrologTimeout", barrier + teardownSeconds, fmt.Sprintf("the barrier (%d s) and the teardown (%d s) together", barrier, teardownSeconds)},
		{"EpilogTimeout", settleSeconds, fmt.Sprintf("the %d s in which EpilogSlurmctld asks enclaved and, without it, Slurm", settleSeconds)},
	} {
		key := c.key
		v, ok := s.Conf.Get(key)
		if !ok {
			key = common
			v, ok = s.Conf.Get(key)
		}
		if !ok {
			what := strings.ToLower(strings.TrimSuffix(c.key, "Timeout"))
			return verdict{
				bad: fmt.Sprintf("neither %s nor %s is set: a script of the %ss that hangs holds its node for ever", common, c.key, what),
				fix: s.write(v, ok, fmt.Sprintf("%s=%d", common, good)),
			}
		}
		if n, err := strconv.Atoi(v.Text); err != nil || n <= c.least {
			return verdict{
				bad: fmt.Sprintf("%s: it must be more than %s", where(v, ok, key), c.why),
				fix: s.write(v, ok, fmt.Sprintf("%s=%d", key, good)),
			}
		}
		told = append(told, key+"="+v.Text)
	}
	return verdict{well: strings.Join(slices.Compact(told), ", ")}
}

// atLeast is a rule for a number of seconds.
func atLeast(name string, code enclave.Code, key string, standard, least int, why string) rule {
	return rule{name: name, code: code, judge: func(s Site) verdict {
		v, ok := s.Conf.Get(key)
		have := standard
		if ok {
			n, err := strconv.Atoi(v.Text)
			if err != nil {
				n = 0
			}
			have = n
		}
		if have < least {
			return verdict{
				bad: fmt.Sprintf("%s, %d s are needed: %s", where(v, ok, key), least, why),
				fix: s.write(v, ok, fmt.Sprintf("%s=%d", key, least)),
			}
		}
		return verdict{well: fmt.Sprintf("%s=%d", key, have)}
	}}
}
