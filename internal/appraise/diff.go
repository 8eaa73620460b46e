package appraise

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Direction says what a change does to who is affirmed.
type Direction string

// A Mixed change lets in what was refused and refuses what was let in.
const (
	Stricter Direction = "stricter"
	Looser   Direction = "looser"
	Mixed    Direction = "mixed"
	Neutral  Direction = "neutral" // names only
)

// Change is one difference of meaning between two policies.
type Change struct {
	Key       string    `json:"key"`
	From      string    `json:"from"`
	To        string    `json:"to"`
	Direction Direction `json:"direction"`
}

// Diff names what policy b changes against a. Comments, order and spelling are no changes, and
// neither is a preset that is written out: what counts is who is affirmed.
func Diff(a, b Policy) []Change {
	d := &differ{}
	d.add("name", a.name, b.name, Neutral)
	d.references(a.references, b.references)
	d.minimum(a.minimum, b.minimum)
	d.add("vmpl", fmt.Sprint(a.vmpl), fmt.Sprint(b.vmpl), Mixed)
	d.number("minimum_guest_svn", a.guestSVN, b.guestSVN)
	d.demands("guest_policy", named(a.guest), named(b.guest))
	d.demands("platform", named(a.platform), named(b.platform))
	d.demands("mitigations", setBits(a.mitigations), setBits(b.mitigations))
	d.list("host_data", texts(a.hostData), texts(b.hostData))
	d.list("id_keys", texts(a.idKeys), texts(b.idKeys))
	d.list("author_keys", texts(a.authorKeys), texts(b.authorKeys))
	after := b.switches()
	for i, s := range a.switches() {
		direction := Stricter
		if after[i].lax {
			direction = Looser
		}
		d.add(s.key, s.value, after[i].value, direction)
	}
	return d.out
}

// switchOf is a key with two values, one of which lets in more.
type switchOf struct {
	key, value string
	lax        bool
}

func (p Policy) switches() []switchOf {
	word := func(key string, v bool, no, yes string, lax bool) switchOf {
		if v {
			return switchOf{key, yes, lax}
		}
		return switchOf{key, no, !lax}
	}
	out := []switchOf{
		word("committed_equals_current", p.committed, "false", "true", false),
		word("require_crl", p.crl, "false", "true", false),
		word("allow_simulated", p.simulated, "false", "true", true),
	}
	for _, c := range (file{}).choices(&p) {
		strict := c.key == "launch_tcb" || c.key == "alias_check" // their yes asks for more
		out = append(out, word(c.key, *c.to, c.no, c.yes, !strict))
	}
	return out
}

type differ struct{ out []Change }

func (d *differ) add(key, from, to string, direction Direction) {
	if from != to {
		d.out = append(d.out, Change{key, from, to, direction})
	}
}

func (d *differ) number(key string, a, b uint32) {
	d.add(key, fmt.Sprint(a), fmt.Sprint(b), direction(b < a, b > a))
}

func direction(looser, stricter bool) Direction {
	switch {
	case looser && stricter:
		return Mixed
	case looser:
		return Looser
	case stricter:
		return Stricter
	}
	return Neutral
}

const (
	none     = "-"
	notAsked = "not asked"
)

func (d *differ) references(a, b map[enclave.Measurement]reference) {
	all := maps.Clone(a)
	maps.Copy(all, b)
	for _, m := range slices.SortedFunc(maps.Keys(all), func(x, y enclave.Measurement) int { return cmp.Compare(x.String(), y.String()) }) {
		key := "reference_values " + m.String()[:16] + "..."
		was, inA := a[m]
		now, inB := b[m]
		switch {
		case !inA:
			d.add(key, none, now.String(), Looser)
		case !inB:
			d.add(key, was.String(), none, Stricter)
		default:
			d.add(key, was.String(), now.String(), direction(more(was.covers, now.covers), more(now.covers, was.covers)))
		}
	}
}

// more is true when b has what a has not.
func more(a, b map[cover]bool) bool {
	for c := range b {
		if !a[c] {
			return true
		}
	}
	return false
}

func (r reference) String() string {
	var covers []string
	for _, c := range []cover{firmware, kernel, rootfs} {
		if r.covers[c] {
			covers = append(covers, string(c))
		}
	}
	return fmt.Sprintf("%q covers [%s]", r.name, strings.Join(covers, ", "))
}

func (d *differ) minimum(a, b map[string]enclave.TCB) {
	for _, part := range parts() {
		was, inA := a[part]
		now, inB := b[part]
		key := "minimum_tcb " + part
		switch {
		case !inA && !inB:
		case !inA:
			d.add(key, none, levels(part, now), Looser)
		case !inB:
			d.add(key, levels(part, was), none, Stricter)
		default:
			d.add(key, levels(part, was), levels(part, now), direction(!now.AtLeast(was), !was.AtLeast(now)))
		}
	}
}

// levels is a minimum as it is written.
func levels(part string, t enclave.TCB) string {
	s := fmt.Sprintf("bl: %d, tee: %d, snp: %d, ucode: %d", t.Bootloader, t.TEE, t.SNP, t.Microcode)
	if hasFMC(part) {
		s = fmt.Sprintf("fmc: %d, ", t.FMC) + s
	}
	return "{" + s + "}"
}

// demands are lists of which everything has to hold.
func (d *differ) demands(key string, a, b []string) {
	slices.Sort(a)
	slices.Sort(b)
	d.add(key, bracket(a, none), bracket(b, none), direction(extra(b, a), extra(a, b)))
}

// list is an allow-list; an empty one is not asked.
func (d *differ) list(key string, a, b []string) {
	looser, stricter := extra(a, b), extra(b, a)
	switch {
	case len(a) == 0:
		looser, stricter = false, len(b) != 0
	case len(b) == 0:
		looser, stricter = true, false
	}
	d.add(key, bracket(a, notAsked), bracket(b, notAsked), direction(looser, stricter))
}

// extra is true when b has what a has not.
func extra(a, b []string) bool {
	return slices.ContainsFunc(b, func(s string) bool { return !slices.Contains(a, s) })
}

func bracket(list []string, empty string) string {
	if len(list) == 0 {
		return empty
	}
	return "[" + strings.Join(list, ", ") + "]"
}

func texts[T interface {
	comparable
	String() string
}](m map[T]bool) []string {
	var out []string
	for v := range m {
		out = append(out, v.String())
	}
	slices.Sort(out)
	return out
}

func setBits(v uint64) []string {
	var out []string
	for bit := range 64 {
		if v>>bit&1 == 1 {
			out = append(out, fmt.Sprint(bit))
		}
	}
	return out
}
