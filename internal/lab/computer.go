package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/host/machine"
)

// computer is the supervisor's hand on one host: the host's agent and what it told.
type computer struct {
	Host
	proc *os.Process

	mu       sync.Mutex
	requests *json.Encoder
	next     int
	pending  map[int]chan event
	daemons  []DaemonState
	programs map[string]machine.Program // of the daemons
	changed  func()                     // called without the lock after a daemon has ended
}

// boot starts the host's first process and plugs it into the switches.
func boot(h Host, changed func()) (*computer, error) {
	ours, theirRequests, err := pipeTo()
	if err != nil {
		return nil, err
	}
	theirEvents, events, err := pipeFrom()
	if err != nil {
		return nil, err
	}
	proc, err := machine.Clone([]string{"agent"}, nil, []*os.File{theirRequests, theirEvents}, os.Stderr)
	if err != nil {
		return nil, err
	}
	_ = theirRequests.Close() // ours is the only other end
	_ = theirEvents.Close()
	c := &computer{Host: h, proc: proc, requests: json.NewEncoder(ours), pending: map[int]chan event{}, programs: map[string]machine.Program{}, changed: changed}
	go c.listen(events)
	for i, s := range switches() {
		if err = machine.Plug(s[0], s[1]+h.Name, card(i), proc.Pid); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func card(i int) string { return fmt.Sprintf("eth%d", i) }

func pipeTo() (ours, theirs *os.File, err error) {
	theirs, ours, err = os.Pipe()
	return ours, theirs, err
}

func pipeFrom() (theirs, ours *os.File, err error) {
	ours, theirs, err = os.Pipe()
	return theirs, ours, err
}

func (c *computer) listen(events *os.File) {
	d := json.NewDecoder(events)
	for {
		var e event
		err := d.Decode(&e)
		c.mu.Lock()
		switch {
		case err != nil:
			for i := range c.daemons {
				c.daemons[i].End = "lost with its host: " + err.Error()
			}
			for id, answer := range c.pending {
				answer <- event{ID: id, Error: c.Name + " is gone: " + err.Error()}
			}
			clear(c.pending)
		case e.ID == 0:
			for i := range c.daemons {
				if c.daemons[i].Name == e.Daemon {
					c.daemons[i].End = e.End
				}
			}
		default:
			c.pending[e.ID] <- e
			delete(c.pending, e.ID)
		}
		c.mu.Unlock()
		if err != nil || e.ID == 0 {
			c.changed()
		}
		if err != nil {
			return
		}
	}
}

func (c *computer) ask(ctx context.Context, r request) (event, error) {
	answer := make(chan event, 1)
	c.mu.Lock()
	c.next++
	r.ID = c.next
	c.pending[r.ID] = answer
	err := c.requests.Encode(r)
	c.mu.Unlock()
	if err != nil {
		return event{}, fmt.Errorf("ask %s: %w", c.Name, err)
	}
	select {
	case e := <-answer:
		if e.Error != "" {
			return e, fmt.Errorf("%s: %s", c.Name, e.Error)
		}
		return e, nil
	case <-ctx.Done():
		return event{}, fmt.Errorf("ask %s: %w", c.Name, ctx.Err())
	}
}

func (c *computer) start(ctx context.Context, name, user string, argv ...string) error {
	p := machine.Program{Argv: argv, User: user}
	e, err := c.ask(ctx, request{Start: &daemon{Name: name, Program: p}})
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.programs[name] = p
	c.daemons = append(c.daemons, DaemonState{Name: name, PID: e.PID})
	return nil
}

// run runs a program to its end; an exit status other than 0 is an error with its output.
func (c *computer) run(ctx context.Context, p machine.Program) (string, error) {
	e, err := c.ask(ctx, request{Run: &p})
	if err != nil {
		return "", err
	}
	if e.Exit != 0 {
		return e.Output, fmt.Errorf("%s: %s exited with status %d: %s", c.Name, p.Argv[0], e.Exit, e.Output)
	}
	return e.Output, nil
}

// until runs a program again and again until it succeeds and good likes its output.
func (c *computer) until(ctx context.Context, p machine.Program, good func(string) bool) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		out, err := c.run(ctx, p)
		if err == nil && good(out) {
			return nil
		}
		if name, end := c.ended(); name != "" {
			said, _ := c.run(ctx, machine.Program{Argv: []string{"tail", "-n", "10", logOf(name)}}) // a lab that does not come up takes its logs along
			return fmt.Errorf("%s: %s %s: %s", c.Name, name, end, said)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s on %s: %w (last: %w; %s)", p.Argv[0], c.Name, ctx.Err(), err, out)
		}
	}
}

// ended names a daemon that has ended, "" when all run, and says how.
func (c *computer) ended() (name, end string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.daemons {
		if d.End != "" {
			return d.Name, d.End
		}
	}
	return "", ""
}

func (c *computer) state() HostState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return HostState{Host: c.Host, PID: c.proc.Pid, Daemons: append([]DaemonState(nil), c.daemons...)}
}
