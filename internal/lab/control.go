package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// order is what Control asks of a running supervisor.
type order struct {
	Host   string `json:"host"`
	Daemon string `json:"daemon"`
	Stop   bool   `json:"stop"`
	Start  bool   `json:"start"`
}

func controlPath() string { return filepath.Join(Directory(), "control.sock") }

// Control stops a daemon of the lab, or starts it again as it was started at first, or both in
// this order. Stopping is SIGKILL: a lab is for seeing what a crash does.
func Control(ctx context.Context, host, daemon string, stop, start bool) error {
	if _, err := Load(); err != nil {
		return err
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", controlPath())
	if err != nil {
		return fmt.Errorf("reach the lab's supervisor: %w", err)
	}
	defer func() { _ = c.Close() }()
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	if err = json.NewEncoder(c).Encode(order{host, daemon, stop, start}); err != nil {
		return fmt.Errorf("tell the lab's supervisor: %w", err)
	}
	var answer string
	if err = json.NewDecoder(c).Decode(&answer); err != nil {
		return fmt.Errorf("hear the lab's supervisor: %w", err)
	}
	if answer != "" {
		return errors.New(answer)
	}
	return nil
}

// listen answers orders until the lab ends.
func (s *supervisor) listen(ctx context.Context) error {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: controlPath(), Net: "unix"})
	if err != nil {
		return fmt.Errorf("listen for orders: %w", err)
	}
	if err := os.Chmod(controlPath(), 0o600); err != nil {
		return errors.Join(err, l.Close())
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.answer(ctx, c)
		}
	}()
	return nil
}

func (s *supervisor) answer(ctx context.Context, c net.Conn) {
	defer func() { _ = c.Close() }()
	var o order
	if err := json.NewDecoder(c).Decode(&o); err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	text := ""
	if err := s.obey(ctx, o); err != nil {
		text = err.Error()
	}
	_ = json.NewEncoder(c).Encode(text) // a caller that has gone needs no answer
}

func (s *supervisor) obey(ctx context.Context, o order) error {
	s.mu.Lock()
	c, ok := s.computers[o.Host]
	s.mu.Unlock()
	if !ok {
		return fmt.Errorf("find host %q in the lab", o.Host)
	}
	if o.Stop {
		if err := c.stop(ctx, o.Daemon); err != nil {
			return err
		}
	}
	if o.Start {
		if err := c.again(ctx, o.Daemon); err != nil {
			return err
		}
	}
	return s.save()
}

// stop kills a daemon and waits until its end is known. One that has ended is fine.
func (c *computer) stop(ctx context.Context, name string) error {
	d, err := c.find(name)
	if err != nil || d.End != "" {
		return err
	}
	if _, err := c.ask(ctx, request{Kill: d.PID}); err != nil {
		return err
	}
	return wait(ctx, name+" to end", func() (bool, error) {
		d, err := c.find(name)
		return d.End != "", err
	})
}

// again starts a daemon that has ended.
func (c *computer) again(ctx context.Context, name string) error {
	d, err := c.find(name)
	if err != nil {
		return err
	}
	if d.End == "" {
		return fmt.Errorf("start %s on %s: it runs", name, c.Name)
	}
	c.mu.Lock()
	program := c.programs[name]
	c.daemons = slices.DeleteFunc(c.daemons, func(d DaemonState) bool { return d.Name == name })
	c.mu.Unlock()
	return c.start(ctx, name, program.User, program.Argv...)
}

func (c *computer) find(name string) (DaemonState, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.daemons {
		if d.Name == name {
			return d, nil
		}
	}
	return DaemonState{}, fmt.Errorf("find daemon %q on %s", name, c.Name)
}

func kill(pid int) error { return syscall.Kill(pid, syscall.SIGKILL) }
