package lab

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
)

// ErrCrashed says that a part of the lab has ended.
var ErrCrashed = errors.New("a part of the lab has crashed")

// Status prints what runs where. ErrCrashed when a daemon has ended, ErrDown when the lab
// is not there.
func Status(out io.Writer) error {
	s, err := Load()
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "HOST\tROLE\tADDRESS\tDAEMON\tSTATE") // the table's errors come with Flush
	crashed := !s.Ready
	for _, h := range s.Hosts {
		for _, d := range h.Daemons {
			state := "running"
			if d.End != "" {
				state, crashed = d.End, true
			}
			_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", h.Name, h.Role, h.Address.Addr(), d.Name, state)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if crashed {
		return ErrCrashed
	}
	return nil
}
