package ladder

import (
	"fmt"
	"strings"
)

// word is a result as people read it.
func (r Result) word() string {
	switch r {
	case Pass:
		return "PASS"
	case Fail:
		return "FAIL"
	case Warn:
		return "WARN"
	}
	return "-"
}

// String is the ladder on one screen: the machine and the one thing to fix, the rungs, and what
// they come to as the last line.
func (l Ladder) String() string {
	var b strings.Builder
	if l.Simulated {
		b.WriteString("SIMULATED, proves nothing about hardware: ")
	}
	fmt.Fprintf(&b, "%s: %s\n\n", l.Machine, or(l.Fix, "nothing to fix"))
	for _, row := range l.Rows {
		fmt.Fprintf(&b, "%-4s  %-10s  %s\n", row.Result.word(), row.Name, row.Reason)
		if row.Fix != "" && row.Fix != l.Fix {
			fmt.Fprintf(&b, "%18s%s\n", "", "fix: "+row.Fix)
		}
	}
	fmt.Fprintf(&b, "\n%s\n", l.Conclusion)
	return b.String()
}
