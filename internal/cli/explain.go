package cli

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Explanation is what one code means.
type Explanation struct {
	Code   enclave.Code `json:"code"`
	Cause  string       `json:"cause"`
	Effect string       `json:"effect"` // on jobs and nodes
	Fix    string       `json:"fix"`
}

// Explanations are all codes in order. It needs no network and no configuration.
func Explanations() []Explanation {
	all := slices.Concat(explainConfiguration(), explainRequest(), explainProtocol(), explainNode(), explainStorage(), explainNetwork(), explainService())
	slices.SortFunc(all, func(a, b Explanation) int { return strings.Compare(string(a.Code), string(b.Code)) })
	return all
}

// Explain finds one code.
func Explain(code enclave.Code) (Explanation, bool) {
	all := Explanations()
	i := slices.IndexFunc(all, func(e Explanation) bool { return e.Code == code })
	if i < 0 {
		return Explanation{}, false
	}
	return all[i], true
}

func explainCommand() *cobra.Command {
	var asJSON bool
	c := command("explain CODE", "What an error code means: cause, effect on jobs, fix", cobra.ExactArgs(1))
	c.RunE = func(c *cobra.Command, args []string) error {
		code := strings.ToUpper(args[0])
		if !regexp.MustCompile(`^E[0-9]{3}$`).MatchString(code) {
			return &ExitError{ExitUsage, fmt.Errorf("%q is no code: want E and three digits", printable(args[0]))}
		}
		e, ok := Explain(enclave.Code(code))
		if !ok {
			return &ExitError{ExitMissing, fmt.Errorf("no code %s in this release", code)}
		}
		if asJSON {
			return printJSON(c.OutOrStdout(), e)
		}
		return printText(c.OutOrStdout(), ExplainScreen(e))
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// ExplainScreen is an explanation as text.
func ExplainScreen(e Explanation) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", e.Code)
	fields(&b, [][2]string{{"CAUSE", e.Cause}, {"EFFECT", e.Effect}, {"FIX", e.Fix}})
	return clean(b.String())
}
