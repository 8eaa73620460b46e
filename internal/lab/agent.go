package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/slurm-enclave/slurm-enclave/internal/host/machine"
)

// request is one order of the supervisor to an agent; exactly one of the others is set.
type request struct {
	ID        int              `json:"id"`
	Configure *hostPlan        `json:"configure,omitempty"`
	Start     *daemon          `json:"start,omitempty"`
	Run       *machine.Program `json:"run,omitempty"`
	Kill      int              `json:"kill,omitempty"` // a PID of this host
}

// event is an agent's answer to a request, or, with ID 0, the news that a daemon has ended.
type event struct {
	ID     int    `json:"id"`
	PID    int    `json:"pid,omitempty"`
	Output string `json:"output,omitempty"`
	Exit   int    `json:"exit"`
	Error  string `json:"error,omitempty"`
	Daemon string `json:"daemon,omitempty"`
	End    string `json:"end,omitempty"`
}

// hostPlan is what an agent needs to become a computer.
type hostPlan struct {
	Name   string           `json:"name"`
	Cards  [][]netip.Prefix `json:"cards"`
	Root   machine.Root     `json:"root"`
	Cgroup string           `json:"cgroup"` // freezer sub-directory, "" for none
}

// daemon is a program that is to run for as long as the lab does.
type daemon struct {
	Name    string          `json:"name"`
	Program machine.Program `json:"program"`
}

// agent is the first process of a host: it inherits every orphan there, and starts what the
// supervisor tells it.
type agent struct {
	mu       sync.Mutex
	children *sync.Cond
	waiting  map[int]func(syscall.WaitStatus)
	events   *json.Encoder
}

// RunAgent is the life of a host's first process: requests from in, events to out, until in
// ends.
func RunAgent(in io.Reader, out io.Writer) error {
	a := &agent{waiting: map[int]func(syscall.WaitStatus){}, events: json.NewEncoder(out)}
	a.children = sync.NewCond(&a.mu)
	go a.reap()
	requests := json.NewDecoder(in)
	for {
		var r request
		if err := requests.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read request: %w", err)
		}
		var err error
		switch {
		case r.Configure != nil:
			if err = configure(*r.Configure); err == nil {
				a.send(event{ID: r.ID})
			}
		case r.Start != nil:
			err = a.start(r.ID, *r.Start)
		case r.Run != nil:
			err = a.run(r.ID, *r.Run)
		case r.Kill > 1:
			if err = kill(r.Kill); err == nil {
				a.send(event{ID: r.ID})
			}
		}
		if err != nil {
			a.send(event{ID: r.ID, Error: err.Error()})
		}
	}
}

func configure(p hostPlan) error {
	if err := machine.PrivateMounts(); err != nil {
		return err
	}
	if err := machine.Hostname(p.Name); err != nil {
		return err
	}
	if err := machine.Loopback(); err != nil {
		return err
	}
	for i, addresses := range p.Cards {
		if err := machine.Addresses(card(i), addresses); err != nil {
			return err
		}
	}
	if err := p.Root.Enter(); err != nil {
		return err
	}
	if p.Cgroup == "" {
		return nil
	}
	return machine.HideCgroups(p.Cgroup)
}

func (a *agent) send(e event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	// The supervisor's end is closed only when the lab is going down.
	_ = a.events.Encode(e)
}

// reap holds the lock between a child's end and its report, and start holds it between fork
// and registration: no end is missed. A child that was started between the word that there is none and
// the lock is in the map, so it is not slept through.
func (a *agent) reap() {
	for {
		pid, status, err := machine.Reap()
		a.mu.Lock()
		if errors.Is(err, syscall.ECHILD) {
			for len(a.waiting) == 0 {
				a.children.Wait()
			}
			a.mu.Unlock()
			continue
		}
		done := a.waiting[pid]
		delete(a.waiting, pid)
		a.mu.Unlock()
		if done != nil {
			go done(status)
		}
	}
}

func (a *agent) spawn(p machine.Program, log *os.File, done func(syscall.WaitStatus)) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	proc, err := p.Start(log)
	if err != nil {
		return 0, err
	}
	a.waiting[proc.Pid] = done
	a.children.Signal()
	return proc.Pid, nil
}

func (a *agent) start(id int, d daemon) error {
	log, err := openLog(d.Name)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	pid, err := a.spawn(d.Program, log, func(s syscall.WaitStatus) {
		a.send(event{Daemon: d.Name, End: describe(s)})
	})
	if err != nil {
		return err
	}
	a.send(event{ID: id, PID: pid})
	return nil
}

func (a *agent) run(id int, p machine.Program) error {
	out, err := os.CreateTemp("/run", "output-")
	if err != nil {
		return err
	}
	_, err = a.spawn(p, out, func(s syscall.WaitStatus) {
		b, readErr := os.ReadFile(out.Name())
		e := event{ID: id, Output: string(b), Exit: s.ExitStatus()}
		if closeErr := errors.Join(readErr, out.Close(), os.Remove(out.Name())); closeErr != nil {
			e.Error = closeErr.Error()
		} else if s.Signaled() {
			e.Error = fmt.Sprintf("%s: %s", p.Argv[0], describe(s))
		}
		a.send(e)
	})
	return err
}

// logOf is where a daemon's output goes on its host.
func logOf(name string) string { return filepath.Join("/var/log/enclave-lab", name+".log") }

func openLog(name string) (*os.File, error) {
	path := logOf(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
}

func describe(s syscall.WaitStatus) string {
	if s.Signaled() {
		return "killed by signal " + s.Signal().String()
	}
	return fmt.Sprintf("exited with status %d", s.ExitStatus())
}
