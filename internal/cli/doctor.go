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
	"github.com/slurm-enclave/slurm-enclave/internal/doctor"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ladder"
	"github.com/slurm-enclave/slurm-enclave/internal/tenants"
)

// Ground reads what the ground rules look at on this host: enclave.yaml at path, slurm.conf, and
// what slurmctld and the accounting database say of themselves where they can be asked. Marked
// says that this is an enclave node.
type Ground func(ctx context.Context, path, slurmConf string) (site doctor.Site, marked bool, err error)

// ErrSlurmConf is a Ground's error for a slurm.conf that can't be read: there is nothing to judge.
var ErrSlurmConf = errors.New("read slurm.conf")

// NewDoctorCommand is `enclave doctor`, on the controller or a node.
func NewDoctorCommand(open Open, h Storehouse, ground Ground) *cobra.Command {
	var asJSON bool
	var slurmConf string
	c := command("doctor", "Find faults of the site's configuration before users meet them", cobra.NoArgs)
	c.Long = `Judge slurm.conf, plugstack.conf, job_submit.lua and PAM by the ground rules on which the promises
rest, each by name, with the line to change; read the controller's files as enclaved does, look for
certificates and revocation lists that end within 30 days, and ask enclaved for its nodes. Run it as
root on the controller. On an enclave node it judges the rules that hold there; what its hardware can
do is said by enclave ok.

Exit status: 0 no fault (there may be warnings), 1 a fault, 2 usage.`
	c.RunE = func(c *cobra.Command, _ []string) error {
		found := examine(c.Context(), configOf(c), slurmConf, open, h, ground)
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
	c.Flags().StringVar(&slurmConf, "slurm-conf", "", "slurm.conf to judge (default $SLURM_CONF, or beside plugstack.conf)")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// DoctorScreen is the symptoms as text, and their sum.
func DoctorScreen(found []doctor.Symptom) string {
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
	fmt.Fprintf(&b, "%s, %s\n", several(count[ladder.Fail], "fault"), several(count[ladder.Warn], "warning"))
	return clean(b.String())
}

// examine stops where the configuration can't be read: all else follows from it.
func examine(ctx context.Context, path, slurmConf string, open Open, h Storehouse, ground Ground) []doctor.Symptom {
	site, marked, err := ground(ctx, path, slurmConf)
	if errors.Is(err, ErrSlurmConf) {
		return []doctor.Symptom{judged("slurm.conf", "", "say where it is: --slurm-conf FILE", "", err)}
	}
	if err != nil {
		return []doctor.Symptom{judged(path, "E002", "correct the line that is named", "", err)}
	}
	c := site.Config.Controller
	out := []doctor.Symptom{{Name: path, Result: ladder.Pass, Reason: "can be used"}}
	if marked {
		return append(out, doctor.Examine(site)...)
	}
	site.Inventory, err = inventoryOf(c)
	out = append(out, tenantSymptom(site.Config), judged(c.Inventory, "E003", "correct "+c.Inventory, fmt.Sprintf("%d nodes", len(site.Inventory.Nodes)), err))
	out = append(out, policySymptoms(c)...)
	out = append(out, doctor.Examine(site)...)
	out = append(out, storeSymptoms(path, h)...)
	return append(out, fleetSymptoms(ctx, path, open)...)
}

// judged passes with well, unless there is an error.
func judged(name string, code enclave.Code, fix, well string, err error) doctor.Symptom {
	if err != nil {
		return doctor.Symptom{Name: name, Result: ladder.Fail, Code: code, Reason: err.Error(), Fix: fix}
	}
	return doctor.Symptom{Name: name, Result: ladder.Pass, Reason: well}
}

// reading opens a file for f.
func reading(path string, f func(io.Reader) error) error {
	r, err := os.Open(path) // #nosec G304 -- named by the admin's own configuration
	if err != nil {
		return err
	}
	return errors.Join(f(r), r.Close())
}

// tenantSymptom also compares the partitions: what enclave.lua pins is what tenants.yaml says.
func tenantSymptom(c config.Config) doctor.Symptom {
	var t *tenants.Table
	err := reading(c.Controller.Tenants, func(r io.Reader) (err error) {
		t, err = tenants.Load(r)
		return err
	})
	if err != nil {
		return judged(c.Controller.Tenants, "E007", "correct "+c.Controller.Tenants, "", err)
	}
	return judged(c.Controller.Tenants, "E047", "write into it: partitions: ["+strings.Join(c.Partitions, ", ")+"]",
		fmt.Sprintf("%d tenants", len(t.Tenants)), t.SamePartitions(c.Partitions))
}

func inventoryOf(c config.Controller) (config.Inventory, error) {
	var i config.Inventory
	err := reading(c.Inventory, func(r io.Reader) (err error) {
		i, err = config.LoadInventory(r)
		return err
	})
	return i, err
}

func policySymptoms(c config.Controller) []doctor.Symptom {
	names, _ := filepath.Glob(filepath.Join(c.Policies, "*.yaml")) // the pattern is a good one
	var out []doctor.Symptom
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
				out = append(out, doctor.Symptom{Name: name, Result: ladder.Warn, Reason: f.Key + ": " + f.Text})
			}
		}
	}
	return out
}

func storeSymptoms(path string, h Storehouse) []doctor.Symptom {
	s, err := h.open(path, "")
	if err != nil {
		return []doctor.Symptom{judged("certificates", "E529", "enclave certs show says more", "", err)}
	}
	defer func() { _ = s.close() }() // only read
	name := s.config.Certificates
	if s.store == nil {
		return []doctor.Symptom{{Name: name, Result: ladder.Warn, Reason: "is not there: the nodes' hosts must hand their certificates out, and nothing is known to be revoked", Fix: "enclave certs sync"}}
	}
	var out []doctor.Symptom
	for _, w := range certs.Warnings(s.holding, h.Now(), certs.WarnAhead) {
		out = append(out, doctor.Symptom{Name: filepath.Join(name, w.Path), Result: ladder.Warn, Code: "E529", Reason: w.Text, Fix: "enclave certs sync"})
	}
	if len(out) == 0 {
		out = append(out, doctor.Symptom{Name: name, Result: ladder.Pass, Reason: fmt.Sprintf("%d files, none ends within 30 days", len(s.holding))})
	}
	return out
}

func fleetSymptoms(ctx context.Context, path string, open Open) []doctor.Symptom {
	src, err := open(ctx, path)
	if err != nil {
		return []doctor.Symptom{judged("enclaved", "E002", "correct "+path, "", err)}
	}
	all, err := src.Nodes(ctx)
	out := []doctor.Symptom{judged("enclaved", "", "is it running? its log says why not", "answers", err)}
	for _, n := range all.Nodes {
		switch {
		case n.Drained:
			out = append(out, doctor.Symptom{Name: "node " + n.Name, Result: ladder.Warn, Reason: "is drained by us", Fix: "enclave why " + n.Name})
		case !n.Enrolled:
			out = append(out, doctor.Symptom{Name: "node " + n.Name, Result: ladder.Warn, Reason: "is not enrolled", Fix: "enclave node enrol " + n.Name})
		}
	}
	return out
}
