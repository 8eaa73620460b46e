package subtree

import (
	"fmt"
	"slices"
	"strings"
)

// Watched lists the mounts that belong to a node's closed state, one line each: what stands on
// the targets of a view, whatever has our label, and the network's file systems, FUSE of users
// among them. Listed visible mounts are the site's business and come and go.
func Watched(c Config, mounts []Mount) []string {
	p := c.Leftovers()
	lines := []string{}
	for _, m := range mounts {
		target := slices.ContainsFunc(p.Steps, func(s Step) bool { return s.Target == m.Point })
		network := m.network() && !slices.Contains(c.Visible, m.Point)
		if target || network || m.Point == c.Root || m.labelled() {
			lines = append(lines, fmt.Sprintf("%q type %s root %q source %q %s", m.Point, m.FSType, m.Root, m.Source, strings.Join(m.Options, ",")))
		}
	}
	slices.Sort(lines)
	return lines
}
