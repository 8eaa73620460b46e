// Command testsum reads `go test -json`, prints what failed and one line a package, and counts
// the tests that stand for each promise. A skipped test is a failure.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
)

// event is a line of test2json (go doc test2json).
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
}

// A test stands for a promise when its name or a parent's starts with TestP and its number.
var promise = regexp.MustCompile(`^TestP([1-8])`)

type sum struct {
	passed, failed, skipped int
	promises                [9]int
	output                  map[string]*strings.Builder
	out                     io.Writer
}

func main() {
	s := sum{output: map[string]*strings.Builder{}, out: os.Stdout}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			s.say("%s\n", lines.Text()) // the compiler's own words
			continue
		}
		s.take(e)
	}
	if err := lines.Err(); err != nil {
		s.say("testsum: %v\n", err)
		s.failed++
	}
	for p := 1; p <= 8; p++ {
		text := "(later)"
		if s.promises[p] > 0 {
			text = ""
		}
		s.say("P%d: %d tests %s\n", p, s.promises[p], text)
	}
	s.say("%d passed, %d failed, %d skipped\n", s.passed, s.failed, s.skipped)
	if s.failed > 0 || s.skipped > 0 || s.passed == 0 {
		os.Exit(1)
	}
}

func (s *sum) say(format string, args ...any) {
	_, _ = fmt.Fprintf(s.out, format, args...) // nobody is left to tell when standard output fails
}

func (s *sum) take(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		if s.output[key] == nil {
			s.output[key] = &strings.Builder{}
		}
		s.output[key].WriteString(e.Output)
		if e.Test == "" && (strings.HasPrefix(e.Output, "ok ") || strings.HasPrefix(e.Output, "FAIL\t")) {
			s.say("%s", e.Output)
		}
	case "build-output":
		s.say("%s", e.Output)
	case "pass", "fail", "skip":
		s.end(e, key)
	}
}

func (s *sum) end(e event, key string) {
	if e.Test == "" {
		if e.Action == "fail" {
			s.failed++
			s.say("%s\n", s.text(key))
		}
		return
	}
	switch e.Action {
	case "pass":
		s.passed++
		if m := promise.FindStringSubmatch(e.Test); m != nil {
			s.promises[m[1][0]-'0']++
		}
	case "fail":
		s.failed++
		s.say("%s", s.text(key))
	case "skip":
		s.skipped++
		s.say("SKIPPED, which fails the run:\n%s", s.text(key))
	}
	delete(s.output, key)
}

func (s *sum) text(key string) string {
	if b := s.output[key]; b != nil {
		return b.String()
	}
	return ""
}
