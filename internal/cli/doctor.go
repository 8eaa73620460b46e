package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slurm-enclave/slurm-enclave/internal/appraise"
	"github.com/slurm-enclave/slurm-enclave/internal/certs"
	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ladder"
	"github.com/slurm-enclave/slurm-enclave/internal/tenants"
)

// Symptom is one line of `enclave doctor`.
type Symptom struct {
	Name   string        `json:"name"`
	Result ladder.Result `json:"result"`
	Code   enclave.Code  `json:"code,omitempty"`
	Reason string        `json:"reason"`
	Fix    string        `json:"fix,omitempty"`
}

// NewDoctorCommand is `enclave doctor` on the controller.
func NewDoctorCommand(open Open, h Storehouse) *cobra.Command {
	var asJSON bool
	c := command("doctor", "Find faults of the controller's files, certificates and nodes before users meet them", cobra.NoArgs)
	c.Long = `Read the controller's files as enclaved does, look for certificates and revocation lists that end within
30 days, and ask enclaved for its nodes. Run it as root on the controller. What a node can do is
said by enclave ok, there.

Exit status: 0 no fault (there may be warnings), 1 a fault, 2 usage.`
	c.RunE = func(c *cobra.Command, _ []string) error {
		found := examine(c.Context(), configOf(c), open, h)
		show := func() error { return printText(c.OutOrStdout(), DoctorScreen(found)) }
		if asJSON {
			show = func() error { return printJSON(c.OutOrStdout(), found) }
		}
		err := show()
		for _, s := range found {
			if s.Result == ladder.Fail && err == nil {
				err = &ExitError{Code: ExitFailure} // the screen has said it
			}
		}
		return err
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// DoctorScreen is the symptoms as text, and their sum.
func DoctorScreen(found []Symptom) string {
	var b strings.Builder
	count := map[ladder.Result]int{}
	for _, s := range found {
		count[s.Result]++
		word := strings.ToUpper(string(s.Result))
		if s.Code != "" {
			word += " " + string(s.Code)
		}
		fmt.Fprintf(&b, "%-9s  %s: %s\n", word, printable(s.Name), printable(s.Reason))
		if s.Fix != "" {
			fmt.Fprintf(&b, "%11s%s\n", "", "fix: "+printable(s.Fix))
		}
	}
	fmt.Fprintf(&b, "%d faults, %d warnings\n", count[ladder.Fail], count[ladder.Warn])
	return clean(b.String())
}

// examine stops where the configuration can't be read: all else follows from it.
func examine(ctx context.Context, path string, open Open, h Storehouse) []Symptom {
	c, err := h.Settings(path)
	if err != nil {
		return []Symptom{judged(path, "E002", "correct the line that is named", "", err)}
	}
	out := []Symptom{{Name: path, Result: ladder.Pass, Reason: "can be used"}, tenantSymptom(c), inventorySymptom(c)}
	out = append(out, policySymptoms(c)...)
	out = append(out, storeSymptoms(path, h)...)
	return append(out, fleetSymptoms(ctx, path, open)...)
}

// judged passes with well, unless there is an error.
func judged(name string, code enclave.Code, fix, well string, err error) Symptom {
	if err != nil {
		return Symptom{Name: name, Result: ladder.Fail, Code: code, Reason: err.Error(), Fix: fix}
	}
	return Symptom{Name: name, Result: ladder.Pass, Reason: well}
}

// reading opens a file for f.
func reading(path string, f func(io.Reader) error) error {
	r, err := os.Open(path) // #nosec G304 -- named by the admin's own configuration
	if err != nil {
		return err
	}
	return errors.Join(f(r), r.Close())
}

func tenantSymptom(c config.Controller) Symptom {
	n := 0
	err := reading(c.Tenants, func(r io.Reader) error {
		t, err := tenants.Load(r)
		if err == nil {
			n = len(t.Tenants)
		}
		return err
	})
	return judged(c.Tenants, "E007", "correct "+c.Tenants, fmt.Sprintf("%d tenants", n), err)
}

func inventorySymptom(c config.Controller) Symptom {
	n := 0
	err := reading(c.Inventory, func(r io.Reader) error {
		i, err := config.LoadInventory(r)
		n = len(i.Nodes)
		return err
	})
	return judged(c.Inventory, "E003", "correct "+c.Inventory, fmt.Sprintf("%d nodes", n), err)
}

func policySymptoms(c config.Controller) []Symptom {
	names, _ := filepath.Glob(filepath.Join(c.Policies, "*.yaml")) // the pattern is a good one
	var out []Symptom
	if wanted := filepath.Join(c.Policies, c.Policy+".yaml"); !slices.Contains(names, wanted) {
		out = append(out, judged(wanted, "E008", "enclave policy learn makes a draft", "", errors.New("the policy that controller.policy names is not there")))
	}
	for _, name := range names {
		var p appraise.Policy
		err := reading(name, func(r io.Reader) (err error) {
			p, err = appraise.Load(r)
			return err
		})
		out = append(out, judged(name, "E008", "correct it; enclave policy check says more", "can be used", err))
		if err == nil {
			for _, f := range appraise.Review(p) {
				out = append(out, Symptom{Name: name, Result: ladder.Warn, Reason: f.Key + ": " + f.Text})
			}
		}
	}
	return out
}

func storeSymptoms(path string, h Storehouse) []Symptom {
	s, err := h.open(path, "")
	if err != nil {
		return []Symptom{judged("certificates", "E529", "enclave certs show says more", "", err)}
	}
	defer func() { _ = s.close() }() // only read
	name := s.config.Certificates
	if s.store == nil {
		return []Symptom{{Name: name, Result: ladder.Warn, Reason: "is not there: the nodes' hosts must hand their certificates out, and nothing is known to be revoked", Fix: "enclave certs sync"}}
	}
	var out []Symptom
	for _, w := range certs.Warnings(s.holding, h.Now(), certs.WarnAhead) {
		out = append(out, Symptom{Name: filepath.Join(name, w.Path), Result: ladder.Warn, Code: "E529", Reason: w.Text, Fix: "enclave certs sync"})
	}
	if len(out) == 0 {
		out = append(out, Symptom{Name: name, Result: ladder.Pass, Reason: fmt.Sprintf("%d files, none ends within 30 days", len(s.holding))})
	}
	return out
}

func fleetSymptoms(ctx context.Context, path string, open Open) []Symptom {
	src, err := open(ctx, path)
	if err != nil {
		return []Symptom{judged("enclaved", "E002", "correct "+path, "", err)}
	}
	all, err := src.Nodes(ctx)
	out := []Symptom{judged("enclaved", "", "is it running? its log says why not", "answers", err)}
	for _, n := range all.Nodes {
		switch {
		case n.Drained:
			out = append(out, Symptom{Name: "node " + n.Name, Result: ladder.Warn, Reason: "is drained by us", Fix: "enclave why " + n.Name})
		case !n.Enrolled:
			out = append(out, Symptom{Name: "node " + n.Name, Result: ladder.Warn, Reason: "is not enrolled", Fix: "enclave node enrol " + n.Name})
		}
	}
	return out
}
