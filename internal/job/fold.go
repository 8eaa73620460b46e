package job

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Fold writes names as a hostlist that Expand reads, for people: n[1-3,7],login. The number that is folded is the
// last one before the first dot, so that names of a domain are folded, too; Slurm itself folds numbers at the end
// of a name alone.
func Fold(names []string) string {
	groups := map[string][]numbered{}
	var order []string
	for _, name := range names {
		n := split(name)
		key := n.before + "\x00" + n.after
		if n.digits == "" {
			key = name
		}
		if _, known := groups[key]; !known {
			order = append(order, key)
		}
		groups[key] = append(groups[key], n)
	}
	items := make([]string, 0, len(order))
	for _, key := range order {
		items = append(items, foldGroup(groups[key]))
	}
	return strings.Join(items, ",")
}

// numbered is a name around its number. digits is "" for a name without one that Expand would read.
type numbered struct {
	before, digits, after string
	number                uint64
}

func split(name string) numbered {
	host, _, _ := strings.Cut(name, ".")
	end := strings.LastIndexAny(host, "0123456789") + 1
	begin := len(strings.TrimRight(host[:end], "0123456789"))
	begin = max(begin, end-9) // as many as Expand takes
	n, err := strconv.ParseUint(name[begin:end], 10, 64)
	if err != nil {
		return numbered{before: name}
	}
	return numbered{name[:begin], name[begin:end], name[end:], n}
}

func foldGroup(g []numbered) string {
	if len(g) == 1 || g[0].digits == "" {
		return g[0].before + g[0].digits + g[0].after
	}
	slices.SortFunc(g, func(a, b numbered) int { return cmp.Or(cmp.Compare(a.number, b.number), len(a.digits)-len(b.digits)) })
	var ranges []string
	for i := 0; i < len(g); {
		j := i + 1
		for j < len(g) && g[j].number == g[j-1].number+1 && g[j].digits == fmt.Sprintf("%0*d", len(g[i].digits), g[j].number) {
			j++
		}
		if j-i == 1 {
			ranges = append(ranges, g[i].digits)
		} else {
			ranges = append(ranges, g[i].digits+"-"+g[j-1].digits)
		}
		i = j
	}
	return g[0].before + "[" + strings.Join(ranges, ",") + "]" + g[0].after
}
