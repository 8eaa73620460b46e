package job

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// MaxNodes bounds the expansion of a hostlist, MaxHostlist its text, maxName one name.
const (
	MaxNodes    = 65536
	MaxHostlist = 1 << 20
	maxName     = 253
)

// Expand spells out a Slurm hostlist, such as n[1-3,7],a-[01-10]b, in its own order. Several
// brackets in one item multiply, the last one running fastest. A node named twice is an error:
// the list says how many members a job has.
func Expand(list string) ([]string, error) {
	if len(list) > MaxHostlist {
		return nil, fmt.Errorf("expand hostlist: over %d bytes", MaxHostlist)
	}
	items, err := splitItems(list)
	if err != nil {
		return nil, fmt.Errorf("expand hostlist: %w", err)
	}
	var all []string
	seen := map[string]bool{}
	for _, item := range items {
		names, err := expandItem(item, MaxNodes-len(all))
		if err != nil {
			return nil, fmt.Errorf("expand hostlist %q: %w", shorten(item), err)
		}
		for _, n := range names {
			if seen[n] {
				return nil, fmt.Errorf("expand hostlist: %s twice", n)
			}
			seen[n] = true
		}
		all = append(all, names...)
	}
	return all, nil
}

// splitItems cuts at the commas outside brackets.
func splitItems(list string) ([]string, error) {
	var items []string
	depth, start := 0, 0
	for i := range len(list) {
		switch list[i] {
		case '[':
			depth++
		case ']':
			depth--
		case ',':
			if depth == 0 {
				items = append(items, list[start:i])
				start = i + 1
			}
		}
		if depth < 0 || depth > 1 {
			return nil, errors.New("brackets do not match")
		}
	}
	if depth != 0 {
		return nil, errors.New("brackets do not match")
	}
	return append(items, list[start:]), nil
}

func expandItem(item string, room int) ([]string, error) {
	names := []string{""}
	for item != "" {
		open := strings.IndexByte(item, '[')
		literal, rest := item, ""
		if open >= 0 {
			literal, rest = item[:open], item[open:]
		}
		for i := range names {
			names[i] += literal
		}
		item = ""
		if rest == "" {
			break
		}
		closing := strings.IndexByte(rest, ']') // splitItems proved that it is there
		numbers, err := expandRanges(rest[1:closing], room/len(names))
		if err != nil {
			return nil, err
		}
		names = multiply(names, numbers)
		item = rest[closing+1:]
	}
	if len(names) > room {
		return nil, fmt.Errorf("more than %d nodes", MaxNodes)
	}
	for _, n := range names {
		if err := CheckNodeName(n); err != nil {
			return nil, err
		}
	}
	return names, nil
}

func multiply(names, numbers []string) []string {
	product := make([]string, 0, len(names)*len(numbers))
	for _, n := range names {
		for _, x := range numbers {
			product = append(product, n+x)
		}
	}
	return product
}

// expandRanges expands "1-3,07-10": the width of the lower bound is kept by leading zeros.
func expandRanges(text string, room int) ([]string, error) {
	var out []string
	for part := range strings.SplitSeq(text, ",") {
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		from, err := number(low)
		if err != nil {
			return nil, err
		}
		to, err := number(high)
		if err != nil {
			return nil, err
		}
		if to < from {
			return nil, fmt.Errorf("range %s runs backwards", part)
		}
		if to-from >= uint64(max(room-len(out), 0)) {
			return nil, fmt.Errorf("more than %d nodes", MaxNodes)
		}
		for n := from; n <= to; n++ {
			out = append(out, fmt.Sprintf("%0*d", len(low), n))
		}
	}
	return out, nil
}

// number refuses signs and spaces, which strconv or Slurm would read differently.
func number(s string) (uint64, error) {
	if s == "" || len(s) > 9 {
		return 0, fmt.Errorf("number %q: want 1 to 9 digits", shorten(s))
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, fmt.Errorf("number %q: want digits", s)
		}
	}
	return strconv.ParseUint(s, 10, 64)
}

// CheckNodeName accepts what can be a NodeName: letters, digits, "-", "_" and ".", beginning
// with a letter or digit, so that no name is an option, a path or a hostlist.
func CheckNodeName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("node name %q: want 1 to %d characters", shorten(name), maxName)
	}
	for i := range len(name) {
		c := name[i]
		alnum := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !alnum && (i == 0 || c != '-' && c != '_' && c != '.') {
			return fmt.Errorf("node name %q: want letters, digits, '-', '_' and '.'", shorten(name))
		}
	}
	return nil
}

func shorten(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}
