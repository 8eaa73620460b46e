package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// Why is the answer to `enclave why`: four lines that an operator reads at three in the morning.
type Why struct {
	Subject   string       `json:"subject"`
	Simulated bool         `json:"simulated"`
	Code      enclave.Code `json:"code,omitempty"`
	What      string       `json:"what"`
	Since     string       `json:"since"`
	Likely    string       `json:"likely"`
	Do        string       `json:"do"`
}

func (s screen) whyCommand() *cobra.Command {
	var asJSON bool
	c := command("why JOBID[.RESTART]|NODE", "What happened to a job or a node, since when, what is likely, what to do", cobra.ExactArgs(1))
	c.RunE = func(c *cobra.Command, args []string) error {
		src, err := s.source(c.Context())
		if err != nil {
			return err
		}
		w, err := whyOf(c.Context(), src, args[0])
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(c.OutOrStdout(), w)
		}
		return printText(c.OutOrStdout(), WhyScreen(w))
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// whyOf takes a number for a job: Slurm allows a node of that name, people do not make one.
func whyOf(ctx context.Context, src Source, subject string) (Why, error) {
	if strings.Trim(subject, "0123456789._[]-,%") == "" {
		job, restart, err := jobAndRestart(subject)
		if err != nil {
			return Why{}, err
		}
		r, err := src.Report(ctx, job, restart)
		if err != nil {
			return Why{}, asked(err)
		}
		return WhyJob(r), nil
	}
	all, err := src.Nodes(ctx)
	if err != nil {
		return Why{}, asked(err)
	}
	i := slices.IndexFunc(all.Nodes, func(n api.NodeLine) bool { return n.Name == subject })
	if i < 0 {
		return Why{}, &ExitError{ExitMissing, fmt.Errorf("no enclave node %s in the inventory", printable(subject))}
	}
	return WhyNode(all.Nodes[i]), nil
}

// WhyJob explains a report.
func WhyJob(r api.Report) Why {
	w := Why{Subject: fmt.Sprintf("job %d, start %d", r.Job, r.Restart), Simulated: simulated(r), Since: instant(&r.Registered), Likely: "-"}
	switch {
	case len(r.Departures) > 0 && r.Refusal != nil:
		w.Since = instant(&r.Departures[0].At)
		return w.refused(*r.Refusal)
	case r.Refusal != nil:
		return w.refused(*r.Refusal)
	case r.Verdict == enclave.VerdictIncomplete && r.Started == nil:
		w.What = "its nodes are proving themselves, or it waits for the last of them"
		w.Do = "nothing: ask again in a minute"
	case r.Verdict == enclave.VerdictIncomplete:
		w.What = "it was let in, and not everything is on record"
		w.Since, w.Do = instant(r.Started), "read enclave report"
	default:
		w.What = "all its nodes were affirmed and it was let in"
		w.Since, w.Do = instant(r.Started), "nothing"
	}
	return w
}

// WhyNode explains a node. Reasons are for operators: others see that there is one.
func WhyNode(n api.NodeLine) Why {
	w := Why{Subject: "node " + n.Name, Since: instant(cmp.Or(n.RevokedAt, n.LastSeen)), Likely: "-", Do: "nothing"}
	switch {
	case n.Refusal != nil && n.Drained:
		w = w.refused(*n.Refusal)
	case n.Refusal != nil:
		w = w.refused(*n.Refusal)
		w.What = n.Refusal.Error() + "; the node is not drained by us"
	case n.Drained:
		w.What = "it was drained by us; the reason is for operators"
	case !n.Enrolled:
		w.What, w.Do = "it is not enrolled: nothing it says counts", "on the node: enclave node enrol --request; then on the controller: enclave node enrol "+n.Name
	case n.LastSeen == nil:
		w.What = "it is enrolled and has not started a job yet"
	default:
		w.What = "its latest evidence was " + or(string(n.Result), "none")
	}
	return w
}

// refused explains with the table of codes; the refusal's own fix is the better one.
func (w Why) refused(r enclave.Refusal) Why {
	w.Code, w.What = r.Code, r.Error()
	w.Likely, w.Do = "-", or(r.Fix, "enclave explain "+string(r.Code))
	if e, ok := Explain(r.Code); ok {
		w.Likely, w.Do = e.Cause, or(r.Fix, e.Fix)
		w.What += ". " + e.Effect
	}
	return w
}

// WhyScreen is the answer as text.
func WhyScreen(w Why) string {
	var b strings.Builder
	head := w.Subject
	if w.Simulated {
		head = "SIMULATED: " + head + " - no hardware protection"
	}
	fmt.Fprintf(&b, "%s\n", printable(head))
	fields(&b, [][2]string{{"WHAT", w.What}, {"SINCE", w.Since}, {"LIKELY", w.Likely}, {"DO", w.Do}})
	return clean(b.String())
}
