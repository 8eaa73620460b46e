package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/process"
)

// Namespaces are what a computer has for itself: mounts, processes, network, IPC, host name.
const Namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS

// Clone starts this program again with other arguments in namespaces of its own, as the
// leader of a new session; env is added to a fixed PATH.
func Clone(args, env []string, files []*os.File, output *os.File) (*os.Process, error) {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = null.Close() }()
	var p *os.Process
	err = process.Aside(func() (err error) {
		if err = unshareMounts(); err != nil {
			return err
		}
		p, err = os.StartProcess(self, append([]string{"enclave-lab"}, args...), &os.ProcAttr{
			Dir:   "/",
			Env:   append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"}, env...),
			Files: append([]*os.File{null, output, output}, files...),
			Sys:   &syscall.SysProcAttr{Cloneflags: Namespaces &^ unix.CLONE_NEWNS, Setsid: true},
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	return p, nil
}

// Program is one program to run on a computer.
type Program struct {
	Argv  []string `json:"argv"`
	User  string   `json:"user"` // "" is root
	Env   []string `json:"env"`  // added to PATH
	Input string   `json:"input,omitempty"`
}

// Start runs the program as the leader of a session of its own, its output going to log. As systemd's
// services it has a session keyring, which it shares with all that it starts.
func (p Program) Start(log *os.File) (*os.Process, error) {
	cred, err := p.credential()
	if err != nil {
		return nil, err
	}
	path, err := exec.LookPath(p.Argv[0])
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", p.Argv[0], err)
	}
	input, err := p.input()
	if err != nil {
		return nil, err
	}
	defer func() { _ = input.Close() }()
	var proc *os.Process
	err = process.Aside(func() (err error) {
		// The session keyring is the thread's.
		if _, err = unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0); err != nil && !errors.Is(err, unix.ENOSYS) {
			return os.NewSyscallError("keyctl", err)
		}
		proc, err = os.StartProcess(path, p.Argv, &os.ProcAttr{
			Dir:   "/",
			Env:   append(os.Environ(), p.Env...),
			Files: []*os.File{input, log, log},
			Sys:   &syscall.SysProcAttr{Setsid: true, Credential: cred},
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Argv[0], err)
	}
	return proc, nil
}

// input is the program's standard input: its text from memory, or nothing.
func (p Program) input() (*os.File, error) {
	if p.Input == "" {
		return os.OpenFile(os.DevNull, os.O_RDONLY, 0)
	}
	fd, err := unix.MemfdCreate("input", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "input")
	if _, err := f.WriteString(p.Input); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if _, err := f.Seek(0, 0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (p Program) credential() (*syscall.Credential, error) {
	if len(p.Argv) == 0 {
		return nil, errors.New("start program: no name given")
	}
	if p.User == "" || p.User == "root" {
		return &syscall.Credential{}, nil
	}
	u, err := user.Lookup(p.User)
	if err != nil {
		return nil, fmt.Errorf("look up user: %w", err)
	}
	uid, errUID := strconv.ParseUint(u.Uid, 10, 32)
	gid, errGID := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(errUID, errGID); err != nil {
		return nil, fmt.Errorf("look up user %s: %w", p.User, err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// Reap waits for any child of the calling process and says which ended how. It is for the
// first process of a PID namespace, which inherits every orphan; ECHILD means there is none.
func Reap() (pid int, status syscall.WaitStatus, err error) {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return pid, syscall.WaitStatus(ws), err
	}
}

// Replace runs a program in place of the calling one and returns only if that fails.
func Replace(argv, env []string) error {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return fmt.Errorf("find %s: %w", argv[0], err)
	}
	return os.NewSyscallError("execve "+path, unix.Exec(path, argv, env))
}

// Missing lists the programs that are not in PATH.
func Missing(programs []string) []string {
	var missing []string
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			missing = append(missing, p)
		}
	}
	return missing
}

// waitDelay is how long the streams of a program that was killed are waited for: a child of its own
// may hold them.
const waitDelay = 2 * time.Second

// Run runs a program to its end with these streams; input may be nil. The int is its exit
// status; the error says that it could not be run or was killed.
func Run(ctx context.Context, argv, env []string, input io.Reader, out, errOut io.Writer) (int, error) {
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	c.Env, c.Stdin, c.Stdout, c.Stderr = env, input, out, errOut
	c.WaitDelay = waitDelay
	err := c.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 0, fmt.Errorf("run %s: %w", argv[0], err)
	}
	return 0, nil
}

// Tool runs a program of this machine; an exit status other than 0 is an error with what it
// printed.
func Tool(ctx context.Context, argv []string) error {
	var out bytes.Buffer
	status, err := Run(ctx, argv, os.Environ(), nil, &out, &out)
	if err == nil && status != 0 {
		err = fmt.Errorf("%s exited with status %d: %s", argv[0], status, bytes.TrimSpace(out.Bytes()))
	}
	return err
}
