// Package gate writes and reads the files that let a job's tasks start on a node, or say why
// they may not.
//
// GO admits a job, for this boot and until a time on CLOCK_BOOTTIME; DENY carries a reason to
// the user; VIEW, where the job's data is seen in a mount namespace alone, says in which. The C plugin reads them in slurmstepd and refuses whatever is not exactly this
// format, so both directions here are as strict. The package decides nothing: prolog and keeper
// write the files, prolog and epilog remove them.
package gate

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Limits of the format, the same as in the plugin.
const (
	sizeLimit     = 4096
	variableLimit = 16
	nameLimit     = 63
	valueLimit    = 200
	reasonLimit   = 511
)

const (
	goTitle   = "slurm-enclave-go 1"
	denyTitle = "slurm-enclave-deny 1"
	viewTitle = "slurm-enclave-view 1"
	prefix    = "ENCLAVE_"
	pmix      = "SLURM_PMIX_DIRECT_CONN"
)

// Variable is one variable of the job's environment.
type Variable struct{ Name, Value string }

// Go admits a job.
type Go struct {
	Job     uint32
	Restart uint32
	Boot    string     // /proc/sys/kernel/random/boot_id without the newline
	Expires uint64     // CLOCK_BOOTTIME in seconds; from then on the gate refuses
	Env     []Variable // in the order of the file
}

// Deny refuses a job with a reason for its user.
type Deny struct {
	Job    uint32
	Code   enclave.Code
	Reason string // one line of printable ASCII
}

// DenyOf makes the DENY of a refusal: its reason and fix in one line, whatever bytes they hold.
func DenyOf(job uint32, r *enclave.Refusal) Deny {
	text := r.Reason
	if r.Node != "" {
		text = r.Node + ": " + text
	}
	if r.Fix != "" {
		text += " (" + r.Fix + ")"
	}
	line := strings.TrimSpace(strings.Map(func(c rune) rune {
		switch {
		case c == '\n' || c == '\t' || c == '\r':
			return ' '
		case c < ' ' || c > '~':
			return '?'
		}
		return c
	}, text))
	if line == "" {
		line = "no reason given"
	}
	return Deny{Job: job, Code: r.Code, Reason: line[:min(len(line), reasonLimit)]}
}

// MarshalText writes the file's bytes. A value that the plugin would refuse is an error.
func (g Go) MarshalText() ([]byte, error) {
	if err := g.check(); err != nil {
		return nil, fmt.Errorf("write go file: %w", err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\njob %d\nrestart %d\nboot %s\nexpires %d\n", goTitle, g.Job, g.Restart, g.Boot, g.Expires)
	for _, v := range g.Env {
		fmt.Fprintf(&b, "env %s=%s\n", v.Name, v.Value)
	}
	b.WriteString("end\n")
	if b.Len() > sizeLimit {
		return nil, fmt.Errorf("write go file: %d bytes, at most %d are allowed", b.Len(), sizeLimit)
	}
	return b.Bytes(), nil
}

// UnmarshalText reads exactly what MarshalText writes.
func (g *Go) UnmarshalText(text []byte) error {
	l, err := split(text, goTitle)
	if err != nil {
		return fmt.Errorf("parse go file: %w", err)
	}
	read := Go{
		Job:     uint32(l.number("job", 32)),
		Restart: uint32(l.number("restart", 32)),
		Boot:    l.field("boot"),
		Expires: l.number("expires", 64),
	}
	for len(l.rest) > 0 && l.err == nil {
		name, value, ok := strings.Cut(l.field("env"), "=")
		if !ok {
			l.fail("a variable without a value")
		}
		read.Env = append(read.Env, Variable{name, value})
	}
	if l.err == nil {
		l.err = read.check()
	}
	if l.err != nil {
		return fmt.Errorf("parse go file: %w", l.err)
	}
	*g = read
	return nil
}

// MarshalText writes the file's bytes. A value that the plugin would refuse is an error.
func (d Deny) MarshalText() ([]byte, error) {
	if err := d.check(); err != nil {
		return nil, fmt.Errorf("write deny file: %w", err)
	}
	return fmt.Appendf(nil, "%s\njob %d\ncode %s\nreason %s\nend\n", denyTitle, d.Job, d.Code, d.Reason), nil
}

// UnmarshalText reads exactly what MarshalText writes.
func (d *Deny) UnmarshalText(text []byte) error {
	l, err := split(text, denyTitle)
	if err != nil {
		return fmt.Errorf("parse deny file: %w", err)
	}
	read := Deny{
		Job:    uint32(l.number("job", 32)),
		Code:   enclave.Code(l.field("code")),
		Reason: l.field("reason"),
	}
	if l.err == nil && len(l.rest) > 0 {
		l.fail("lines after the reason")
	}
	if l.err == nil {
		l.err = read.check()
	}
	if l.err != nil {
		return fmt.Errorf("parse deny file: %w", l.err)
	}
	*d = read
	return nil
}

func (g Go) check() error {
	if g.Job == 0 {
		return errors.New("job 0")
	}
	if !isBoot(g.Boot) {
		return fmt.Errorf("boot id %q", g.Boot)
	}
	if len(g.Env) > variableLimit {
		return fmt.Errorf("%d variables, at most %d are allowed", len(g.Env), variableLimit)
	}
	for i, v := range g.Env {
		if !isName(v.Name) {
			return fmt.Errorf("variable name %q", v.Name)
		}
		if len(v.Value) > valueLimit || !printable(v.Value) || strings.ContainsAny(v.Value, `'"\`) {
			return fmt.Errorf("value of %s: %q", v.Name, v.Value)
		}
		if slices.ContainsFunc(g.Env[:i], func(o Variable) bool { return o.Name == v.Name }) {
			return fmt.Errorf("variable %s twice", v.Name)
		}
	}
	return nil
}

func (d Deny) check() error {
	switch {
	case d.Job == 0:
		return errors.New("job 0")
	case len(d.Code) != 4 || d.Code[0] != 'E' || strings.Trim(string(d.Code[1:]), "0123456789") != "":
		return fmt.Errorf("code %q", d.Code)
	case d.Reason == "" || len(d.Reason) > reasonLimit || !printable(d.Reason):
		return fmt.Errorf("reason %q", d.Reason)
	}
	return nil
}

// lines is the middle of a file, between title and end, read one field after the other.
type lines struct {
	rest []string
	err  error
}

func split(text []byte, title string) (*lines, error) {
	s := string(text)
	if len(s) > sizeLimit {
		return nil, fmt.Errorf("%d bytes, at most %d are allowed", len(s), sizeLimit)
	}
	s, ok := strings.CutPrefix(s, title+"\n")
	if !ok {
		return nil, fmt.Errorf("the first line is not %q", title)
	}
	s, ok = strings.CutSuffix(s, "\nend\n")
	if !ok {
		return nil, errors.New(`the last line is not "end"`)
	}
	l := &lines{rest: strings.Split(s, "\n")}
	for _, line := range l.rest {
		if !printable(line) {
			return nil, fmt.Errorf("bytes that are not printable ASCII in %q", line)
		}
	}
	return l, nil
}

func (l *lines) fail(format string, args ...any) {
	if l.err == nil {
		l.err = fmt.Errorf(format, args...)
	}
}

func (l *lines) field(key string) string {
	if len(l.rest) == 0 {
		l.fail("no line %q", key)
		return ""
	}
	value, ok := strings.CutPrefix(l.rest[0], key+" ")
	if !ok {
		l.fail("line %q where %q is due", l.rest[0], key)
	}
	l.rest = l.rest[1:]
	return value
}

// number accepts the one spelling that strconv writes: no sign, no leading zero.
func (l *lines) number(key string, bits int) uint64 {
	s := l.field(key)
	n, err := strconv.ParseUint(s, 10, bits)
	if err != nil || strconv.FormatUint(n, 10) != s {
		l.fail("%s %q", key, s)
	}
	return n
}

func printable(s string) bool {
	return strings.IndexFunc(s, func(c rune) bool { return c < ' ' || c > '~' }) < 0
}

func isName(s string) bool {
	if s == pmix {
		return true
	}
	rest, ok := strings.CutPrefix(s, prefix)
	return ok && rest != "" && len(s) <= nameLimit && strings.Trim(rest, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == ""
}

// isBoot accepts 8-4-4-4-12 lower-case hexadecimal digits.
func isBoot(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash != (c == '-') || !dash && strings.IndexByte("0123456789abcdef", c) < 0 {
			return false
		}
	}
	return true
}
