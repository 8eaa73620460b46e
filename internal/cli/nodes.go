package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

func (s screen) nodesCommand() *cobra.Command {
	var asJSON bool
	c := command("nodes", "The enclave nodes and what their latest evidence was worth", cobra.NoArgs)
	c.RunE = func(c *cobra.Command, _ []string) error {
		src, err := s.source(c.Context())
		if err != nil {
			return err
		}
		n, err := src.Nodes(c.Context())
		if err != nil {
			return asked(err)
		}
		if asJSON {
			return printJSON(c.OutOrStdout(), n)
		}
		return printText(c.OutOrStdout(), NodesScreen(n))
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func (s screen) jobsCommand() *cobra.Command {
	var asJSON bool
	c := command("jobs", "The jobs that you may see, with their verdicts", cobra.NoArgs)
	c.RunE = func(c *cobra.Command, _ []string) error {
		src, err := s.source(c.Context())
		if err != nil {
			return err
		}
		j, err := src.Jobs(c.Context())
		if err != nil {
			return asked(err)
		}
		if asJSON {
			return printJSON(c.OutOrStdout(), j)
		}
		return printText(c.OutOrStdout(), JobsScreen(j))
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// NodesScreen is the fleet as text.
func NodesScreen(n api.Nodes) string {
	var b strings.Builder
	w := table(&b)
	row(w, "NODE", "ENROLLED", "LATEST EVIDENCE", "LAST JOB", "LAST SEEN", "STATE")
	for _, l := range n.Nodes {
		enrolled := "no"
		if l.Enrolled {
			enrolled = "yes"
		}
		row(w, l.Name, enrolled, or(string(l.Result), "none"), or(l.LastJob, "-"), instant(l.LastSeen), nodeState(l))
	}
	_ = w.Flush() // a strings.Builder never fails
	for _, a := range n.Alarms {
		fmt.Fprintf(&b, "alarm %s %s %s\n", instant(&a.At), a.Code, printable(a.Reason))
	}
	for _, name := range slices.Sorted(maps.Keys(n.Counters)) {
		fmt.Fprintf(&b, "counter %s %d\n", printable(name), n.Counters[name])
	}
	return clean(b.String())
}

func nodeState(l api.NodeLine) string {
	switch {
	case l.Drained && l.Refusal != nil:
		return "drained by us, " + string(l.Refusal.Code)
	case l.Drained:
		return "drained by us"
	case !l.Enrolled:
		return "not enrolled"
	}
	return "in use"
}

// JobsScreen is a list of jobs as text. Its first line says when some of them are simulated.
func JobsScreen(j api.Jobs) string {
	var b strings.Builder
	fake := 0
	for _, l := range j.Jobs {
		if l.Verdict == enclave.VerdictSimulated {
			fake++
		}
	}
	if fake > 0 {
		fmt.Fprintf(&b, "SIMULATED: %d of %s had no hardware protection\n", fake, several(len(j.Jobs), "start"))
	}
	w := table(&b)
	row(w, "JOB", "START", "USER", "ACCOUNT", "TENANT", "NODES", "VERDICT", "CODE", "REGISTERED", "OVER")
	for _, l := range j.Jobs {
		verdict := strings.ToUpper(string(l.Verdict))
		if l.Weak {
			verdict += ", WEAK"
		}
		row(w, fmt.Sprint(l.Job), fmt.Sprint(l.Restart), l.User, or(l.Account, "-"), l.Tenant, fmt.Sprint(len(l.Nodes)), verdict,
			or(string(l.Code), "-"), instant(&l.Registered), instant(l.Ended))
	}
	_ = w.Flush() // a strings.Builder never fails
	return clean(b.String())
}
