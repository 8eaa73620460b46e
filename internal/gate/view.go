package gate

import (
	"errors"
	"fmt"
)

// View says in which mount namespace a job's data is seen. The prolog writes it before GO, with no
// namespace yet; then the gate refuses every task until the view is made.
type View struct {
	Job       uint32
	Boot      string
	Namespace uint64 // its inode, as in mnt:[4026532000]; 0 as long as there is no view
}

// MarshalText writes the file's bytes. A value that the plugin would refuse is an error.
func (v View) MarshalText() ([]byte, error) {
	if err := v.check(); err != nil {
		return nil, fmt.Errorf("write view file: %w", err)
	}
	return fmt.Appendf(nil, "%s\njob %d\nboot %s\nnamespace %d\nend\n", viewTitle, v.Job, v.Boot, v.Namespace), nil
}

// UnmarshalText reads exactly what MarshalText writes.
func (v *View) UnmarshalText(text []byte) error {
	l, err := split(text, viewTitle)
	if err != nil {
		return fmt.Errorf("parse view file: %w", err)
	}
	read := View{Job: uint32(l.number("job", 32)), Boot: l.field("boot"), Namespace: l.number("namespace", 64)}
	if l.err == nil && len(l.rest) > 0 {
		l.fail("lines after the namespace")
	}
	if l.err == nil {
		l.err = read.check()
	}
	if l.err != nil {
		return fmt.Errorf("parse view file: %w", l.err)
	}
	*v = read
	return nil
}

func (v View) check() error {
	if v.Job == 0 {
		return errors.New("job 0")
	}
	if !isBoot(v.Boot) {
		return fmt.Errorf("boot id %q", v.Boot)
	}
	return nil
}
