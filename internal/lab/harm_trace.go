package lab

import (
	"regexp"
	"slices"
	"strings"
)

var (
	stepdBegins = regexp.MustCompile(`^execve\("[^"]*slurmstepd"`)
	otherBegins = regexp.MustCompile(`^execve\("[^"]*", .* = 0$`)
	childBegins = regexp.MustCompile(`^(?:clone|clone3|fork|vfork)\(.* = (\d+)$`)
)

// stepCalls counts the system calls of slurmstepd in the traces of slurmd's threads and children, each
// behind a line "== NUMBER": from slurmstepd's exec on, those of its threads and children, and of no
// program that they become.
func stepCalls(traces string) int {
	byThread := map[string][]string{}
	number := ""
	for line := range strings.Lines(traces) {
		line = strings.TrimSuffix(line, "\n")
		if n, ok := strings.CutPrefix(line, "== "); ok {
			number = n
			continue
		}
		byThread[number] = append(byThread[number], line)
	}
	calls := 0
	for _, lines := range byThread {
		if i := slices.IndexFunc(lines, stepdBegins.MatchString); i >= 0 {
			calls += 1 + callsOf(byThread, lines[i+1:])
		}
	}
	return calls
}

func callsOf(byThread map[string][]string, lines []string) int {
	n := 0
	for _, line := range lines {
		if otherBegins.MatchString(line) {
			break
		}
		if strings.HasPrefix(line, "--- ") || strings.HasPrefix(line, "+++ ") {
			continue // a signal, the end
		}
		n++
		if m := childBegins.FindStringSubmatch(line); m != nil {
			n += callsOf(byThread, byThread[m[1]])
		}
	}
	return n
}
