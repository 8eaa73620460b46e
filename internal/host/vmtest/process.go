package vmtest

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"
)

// Command is a program to run in a machine.
type Command struct {
	Argv []string
	Env  []string
	Dir  string // "" is /tmp
	UID  uint32

	Cgroup string // below cgroup v2's root, "" is the root
	Input  string // for its standard input, which is closed after it unless Open
	Open   bool
}

// Process is a program in a machine.
type Process struct {
	m    *Machine
	id   int
	done chan struct{}

	mu    sync.Mutex
	more  chan struct{} // closed when a line has come
	lines []string
	read  int // lines that Says has looked at
	ended bool
	err   string
}

func newProcess(m *Machine, id int) *Process {
	return &Process{m: m, id: id, done: make(chan struct{}), more: make(chan struct{})}
}

// Start starts a program; it is killed when the machine ends.
func (m *Machine) Start(c Command) *Process {
	m.mu.Lock()
	m.next++
	p := newProcess(m, m.next)
	m.procs[p.id] = p
	m.mu.Unlock()
	m.order(order{ID: p.id, Argv: c.Argv, Env: c.Env, Dir: c.Dir, UID: c.UID, Cgroup: c.Cgroup, Text: c.Input, EOF: !c.Open})
	select {
	case <-m.ended: // perhaps before it could be told of this process
		p.hear(word{Ended: true, Error: "the machine ended"})
	default:
	}
	return p
}

func (m *Machine) order(o order) {
	m.mu.Lock()
	defer m.mu.Unlock()
	// One that fails is for a machine that has ended, of which its processes hear.
	_ = json.NewEncoder(m.port).Encode(o)
}

// Try runs a program to its end and gives its output.
func (m *Machine) Try(argv ...string) (string, bool) {
	return m.Start(Command{Argv: argv}).Wait(bootTime)
}

// Run runs a program and ends the test when it fails.
func (m *Machine) Run(t testing.TB, argv ...string) string {
	t.Helper()
	out, ok := m.Try(argv...)
	if !ok {
		t.Fatalf("%s: %s failed:\n%s", m.Name, strings.Join(argv, " "), out)
	}
	return out
}

func (p *Process) hear(w word) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return
	}
	if w.Ended {
		p.ended, p.err = true, w.Error
		close(p.done)
	} else {
		p.lines = append(p.lines, w.Line)
	}
	close(p.more)
	p.more = make(chan struct{})
}

// Say writes a line to its standard input.
func (p *Process) Say(line string) { p.m.order(order{ID: p.id, Text: line + "\n"}) }

// Kill ends it at once.
func (p *Process) Kill() { p.m.order(order{ID: p.id, Kill: true}) }

// Says waits for a further line with this in it.
func (p *Process) Says(what string, atMost time.Duration) bool {
	_, ok := p.Find(what, atMost)
	return ok
}

// Find is Says, with the line.
func (p *Process) Find(what string, atMost time.Duration) (string, bool) {
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	for {
		p.mu.Lock()
		for p.read < len(p.lines) {
			line := p.lines[p.read]
			p.read++
			if strings.Contains(line, what) {
				p.mu.Unlock()
				return line, true
			}
		}
		more, ended := p.more, p.ended
		p.mu.Unlock()
		if ended {
			return "", false
		}
		select {
		case <-more:
		case <-timer.C:
			return "", false
		}
	}
}

// Must ends the test when the line does not come.
func (p *Process) Must(t testing.TB, what string) string {
	t.Helper()
	line, ok := p.Find(what, time.Minute)
	if !ok {
		t.Fatalf("%s: waited for %q, heard:\n%s", p.m.Name, what, p.Output())
	}
	return line
}

// Next gives the next line, and false when there is none in time or the program has ended.
func (p *Process) Next(atMost time.Duration) (string, bool) { return p.Find("", atMost) }

// Output is all that it said so far, one line each, and how it failed.
func (p *Process) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := strings.Join(p.lines, "\n")
	if p.err != "" {
		out += "\n" + p.err
	}
	return out
}

// Wait waits for its end and says whether it ended well, in time.
func (p *Process) Wait(atMost time.Duration) (string, bool) {
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.Kill()
		return p.Output() + "\nnot done in time", false
	}
	p.mu.Lock()
	ok := p.err == ""
	p.mu.Unlock()
	return p.Output(), ok
}
