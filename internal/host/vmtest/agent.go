package vmtest

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// order is what the test tells the agent, one JSON object a line.
type order struct {
	ID   int      `json:"id"`             // of a process, the test's choice
	Argv []string `json:"argv,omitempty"` // start it
	Env  []string `json:"env,omitempty"`
	Dir  string   `json:"dir,omitempty"`
	UID  uint32   `json:"uid,omitempty"`

	Cgroup string `json:"cgroup,omitempty"` // to start in, of cgroup v2; made when it is not there

	Text string `json:"text,omitempty"` // for its standard input
	EOF  bool   `json:"eof,omitempty"`  // close that
	Kill bool   `json:"kill,omitempty"`
}

// word is what the agent tells the test.
type word struct {
	ID    int    `json:"id"`
	Line  string `json:"line,omitempty"` // of standard output or error
	Ended bool   `json:"ended,omitempty"`
	Error string `json:"error,omitempty"` // with Ended: how it failed
}

const agentWord = "vm-agent"

// Play is the agent's main when the program was started as one, and does not return then. A
// TestMain calls it first.
func Play() {
	if len(os.Args) != 2 || os.Args[1] != agentWord {
		return
	}
	a := &agent{out: json.NewEncoder(os.Stdout), procs: map[int]*proc{}}
	a.say(word{Line: "up"})
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		var o order
		if err := json.Unmarshal(in.Bytes(), &o); err != nil {
			a.say(word{Line: "not an order: " + err.Error()})
			continue
		}
		a.obey(o)
	}
	os.Exit(0)
}

type proc struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
}

type agent struct {
	mu    sync.Mutex
	out   *json.Encoder
	procs map[int]*proc
}

func (a *agent) say(w word) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_ = a.out.Encode(w) // the test has ended: so will the machine
}

func (a *agent) obey(o order) {
	if len(o.Argv) > 0 {
		p, err := a.start(o)
		if err != nil {
			a.say(word{ID: o.ID, Ended: true, Error: err.Error()})
			return
		}
		a.procs[o.ID] = p
	}
	p := a.procs[o.ID]
	if p == nil {
		return
	}
	if o.Text != "" {
		_, _ = io.WriteString(p.stdin, o.Text) // one that has ended reads no more
	}
	if o.EOF {
		_ = p.stdin.Close()
	}
	if o.Kill {
		_ = p.cmd.Process.Kill()
	}
}

func (a *agent) start(o order) (*proc, error) {
	cmd := exec.Command(o.Argv[0], o.Argv[1:]...)
	cmd.Env = append([]string{"PATH=/sbin:/bin:/usr/sbin:/usr/bin", "HOME=/root", "CI=true"}, o.Env...)
	if cmd.Dir = o.Dir; cmd.Dir == "" {
		cmd.Dir = "/tmp"
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: o.UID, Gid: o.UID}}
	if o.Cgroup != "" {
		group, err := cgroup(o.Cgroup)
		if err != nil {
			return nil, err
		}
		defer func() { _ = group.Close() }()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(group.Fd())
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	// One pipe of our own for both: a daemon that the program leaves behind may hold it, and its
	// end must not be waited for.
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		lines := bufio.NewReaderSize(r, 1<<20)
		for {
			line, err := lines.ReadString('\n')
			if line != "" {
				a.say(word{ID: o.ID, Line: strings.TrimSuffix(line, "\n")})
			}
			if err != nil {
				return
			}
		}
	}()
	go func() {
		<-read
		end := word{ID: o.ID, Ended: true}
		if err := cmd.Wait(); err != nil {
			end.Error = err.Error()
		}
		a.say(end)
	}()
	return &proc{cmd: cmd, stdin: stdin}, nil
}

// cgroup makes a cgroup and opens it.
func cgroup(name string) (*os.File, error) {
	dir := filepath.Join("/sys/fs/cgroup", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return os.Open(dir)
}
