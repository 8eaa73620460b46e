package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/host/process"
)

// NameVariable is the environment variable that names one of several labs on a machine; unset
// is the lab without a name.
const NameVariable = "ENCLAVE_LAB"

const mostName = 16

// called is what the machine calls this lab's directory and cgroup.
func called() string {
	if name := os.Getenv(NameVariable); name != "" {
		return "enclave-lab-" + name
	}
	return "enclave-lab"
}

// CheckName refuses a lab's name that is no plain word: it becomes part of paths.
func CheckName() error {
	name := os.Getenv(NameVariable)
	odd := strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789")
	if odd != "" || len(name) > mostName {
		return fmt.Errorf("read %s=%q: a lab's name is at most %d small letters and digits", NameVariable, name, mostName)
	}
	return nil
}

// Directory is where a lab keeps what the machine itself must find again.
func Directory() string { return filepath.Join("/run", called()) }

// DaemonState is what became of one daemon.
type DaemonState struct {
	Name string `json:"name"`
	PID  int    `json:"pid"`           // in the host's PID namespace
	End  string `json:"end,omitempty"` // "" while it runs
}

// HostState is one host as the supervisor sees it.
type HostState struct {
	Host
	PID     int           `json:"pid"` // of its first process, in the lab's PID namespace
	Daemons []DaemonState `json:"daemons"`
}

// State is the lab as written to lab.json.
type State struct {
	Spec       Spec        `json:"spec"`
	Supervisor int         `json:"supervisor"` // PID on the machine
	StartTime  uint64      `json:"start_time"` // of the supervisor, as process.Began
	Ready      bool        `json:"ready"`
	Loop       string      `json:"loop,omitempty"` // block device of the file system, "loop3"
	Hosts      []HostState `json:"hosts"`
}

// ErrDown says that no lab is up.
var ErrDown = errors.New("the lab is down: run enclave-lab up --nodes 3")

func statePath() string { return filepath.Join(Directory(), "lab.json") }

// Load reads the state of the running lab. ErrDown when there is none, or when the
// supervisor has died.
func Load() (State, error) {
	var s State
	b, err := os.ReadFile(statePath())
	if errors.Is(err, os.ErrNotExist) {
		return s, ErrDown
	}
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("read %s: %w", statePath(), err)
	}
	if !s.alive() {
		return s, ErrDown
	}
	return s, nil
}

func (s State) alive() bool {
	t, err := process.Began(s.Supervisor)
	return err == nil && t == s.StartTime
}

func (s State) host(name string) (HostState, error) {
	for _, h := range s.Hosts {
		if h.Name == name {
			return h, nil
		}
	}
	return HostState{}, fmt.Errorf("find host %q: the lab has n0, n1..n%d, c1..c%d and login", name, s.Spec.Nodes, s.Spec.Plain)
}

func (s State) save() error {
	b, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return err
	}
	tmp := statePath() + ".new"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, statePath())
}
