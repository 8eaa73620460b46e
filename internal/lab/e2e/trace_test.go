//go:build e2e

package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/lab"
)

// neighbours are the other labs of this machine that are up: what is theirs is no trace of ours.
func neighbours() []lab.State {
	files, err := filepath.Glob("/run/enclave-lab*/lab.json")
	if err != nil {
		panic(err) // the pattern is wrong
	}
	var found []lab.State
	for _, f := range files {
		if filepath.Dir(f) == lab.Directory() {
			continue
		}
		var s lab.State
		if b, err := os.ReadFile(f); err == nil && json.Unmarshal(b, &s) == nil {
			found = append(found, s)
		}
	}
	return found
}

// others says whether a line of the trace speaks of another lab.
func others(line string) bool {
	line = strings.TrimSpace(line)
	if name := filepath.Base(line); strings.HasPrefix(name, "enclave-lab") && name != filepath.Base(lab.Directory()) {
		return true
	}
	if m := regexp.MustCompile(`/run/enclave-lab[a-z0-9-]*`).FindString(line); m != "" && m != lab.Directory() {
		return true
	}
	for _, n := range neighbours() {
		if n.Loop != "" && strings.HasPrefix(line, "/dev/"+n.Loop+":") {
			return true
		}
	}
	return false
}

// linesOnlyIn are the lines of a trace that another has fewer times, below the command that printed them.
func linesOnlyIn(one, other string) string {
	left := map[string]int{}
	for line := range strings.Lines(other) {
		left[line]++
	}
	b, command := strings.Builder{}, ""
	for line := range strings.Lines(one) {
		if strings.HasPrefix(line, "$ ") {
			command = line
		}
		if left[line]--; left[line] >= 0 {
			continue
		}
		b.WriteString(command + line)
		command = ""
	}
	return b.String()
}

// processTrace lists the processes that are ours by their names, but those below the supervisor
// of another lab, and the ended ones that this machine's first process has to wait for.
func processTrace() string {
	ours := regexp.MustCompile(`^[^ ]*(slurm|munged|mariadbd|enclave)`)
	skip := map[int]bool{}
	for _, n := range neighbours() {
		skip[n.Supervisor] = true
	}
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		panic(err)
	}
	b := strings.Builder{}
	for _, f := range files {
		argv, err := os.ReadFile(f)
		name := string(bytes.TrimSpace(bytes.ReplaceAll(argv, []byte{0}, []byte{' '})))
		if err != nil || !ours.MatchString(name) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if err == nil && !below(pid, skip) && !speaksToAnother(pid) {
			fmt.Fprintln(&b, name)
		}
	}
	return b.String()
}

// speaksToAnother says whether a process was started for another lab than ours.
func speaksToAnother(pid int) bool {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return false
	}
	for v := range bytes.SplitSeq(env, []byte{0}) {
		if name, ok := bytes.CutPrefix(v, []byte(lab.NameVariable+"=")); ok {
			return string(name) != os.Getenv(lab.NameVariable)
		}
	}
	return os.Getenv(lab.NameVariable) != ""
}

// below says whether a process or one of its ancestors is in the set.
func below(pid int, set map[int]bool) bool {
	for pid > 1 {
		if set[pid] {
			return true
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return false
		}
		// proc(5): the name in parentheses may hold anything; the parent is the second word after it.
		words := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(words) < 2 {
			return false
		}
		if pid, err = strconv.Atoi(words[1]); err != nil {
			return false
		}
	}
	return false
}
