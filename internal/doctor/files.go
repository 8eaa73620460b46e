package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/ground"
)

const pluginName = "enclave.so"

func fileRules() []rule {
	return []rule{
		{name: "enclave.lua", code: "E035", judge: jobSubmit},
		{name: "plugstack.conf", code: "E042", judge: plugstack},
		{name: "ssh into jobs", code: "E044", judge: adoption},
	}
}

// matches are the files that a setting means: itself, or those of a pattern. slurmd looks for a
// name without a path beside slurm.conf.
func (s Site) matches(name string) []string {
	if !path.IsAbs(name) {
		name = path.Join(path.Dir(s.Conf.Path), name)
	}
	if !strings.ContainsAny(name, "*?[") {
		return []string{name}
	}
	found, err := s.Files.Glob(name)
	if err != nil {
		return nil
	}
	return found
}

// calls says whether a script names a program outside of its comments. A program that is no text
// calls nothing that could be read.
func (s Site) calls(name, program string) bool {
	text, err := s.Files.Read(name)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if code, _, _ := strings.Cut(line, "#"); strings.Contains(code, "/"+program) {
			return true
		}
	}
	return false
}

// jobSubmit: job_submit.lua must hand both submit and modify over.
func jobSubmit(s Site) verdict {
	name := path.Join(path.Dir(s.Conf.Path), "job_submit.lua")
	text, err := s.Files.Read(name)
	if errors.Is(err, fs.ErrNotExist) {
		text = nil
	} else if err != nil {
		return verdict{bad: fmt.Sprintf("read %s: %v", name, err), fix: "make it readable for slurmctld"}
	}
	code := strings.Builder{}
	for line := range strings.Lines(string(text)) {
		before, _, _ := strings.Cut(line, "--")
		code.WriteString(before + "\n")
	}
	for _, want := range []string{"enclave.lua", ".submit(", ".modify("} {
		if !strings.Contains(code.String(), want) {
			return verdict{
				bad: fmt.Sprintf("%s does not hand jobs over to enclave.lua (no %q in it): users could change partition, nodes or tenant", name, want),
				fix: `write into ` + name + `: local enclave = dofile("/etc/slurm-enclave/enclave.lua"), and return enclave.submit(...) and enclave.modify(...) from slurm_job_submit and slurm_job_modify`,
			}
		}
	}
	return verdict{well: name + " hands submit and modify over"}
}

// plugstack asks what the node's prolog asks: it would drain the node.
func plugstack(s Site) verdict {
	settings, refusal := ground.ReadSettings(s.Files, s.Conf.Path)
	if refusal == nil {
		var p ground.Plugin
		if p, refusal = ground.FindPlugin(s.Files, settings.Plugstack, settings.Plugins, pluginName); refusal == nil {
			return verdict{well: p.From + " requires " + p.Path}
		}
	}
	return verdict{bad: fmt.Sprintf("%s (%s, on a node)", refusal.Reason, refusal.Code), fix: refusal.Fix}
}

// adoption: pam_slurm_adopt lets a session in when it can't adopt it, unless it is told to deny.
func adoption(s Site) verdict {
	names, err := s.Files.Glob("/etc/pam.d/*")
	if err != nil {
		return verdict{bad: fmt.Sprintf("list /etc/pam.d: %v", err), fix: "make it readable"}
	}
	slices.Sort(names)
	used := false
	for _, name := range names {
		text, err := s.Files.Read(name)
		if err != nil {
			continue // PAM's own fault would show in every login
		}
		number := 0
		for line := range strings.Lines(string(text)) {
			number++
			code, _, _ := strings.Cut(line, "#")
			if !strings.Contains(code, "pam_slurm_adopt.so") {
				continue
			}
			used = true
			if !slices.Contains(strings.Fields(code), "action_adopt_failure=deny") {
				return verdict{
					bad: fmt.Sprintf("%s line %d: a session that can't be adopted into a job is let in outside of it", name, number),
					fix: fmt.Sprintf("write in %s line %d: %s action_adopt_failure=deny", name, number, strings.TrimSpace(code)),
				}
			}
		}
	}
	if !used {
		return verdict{well: "pam_slurm_adopt is not used on this host"}
	}
	return verdict{well: "action_adopt_failure=deny"}
}
