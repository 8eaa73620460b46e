//go:build e2e

package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/lab"
)

// leakAgent in the environment makes the test program an actor within a job: "listen:PATH" does
// what is asked at a socket there (sockets of that kind know no network namespaces), "act" does
// one role from its standard input, "echo:PORTS" serves, "hold:PATH" makes sockets for others, "setcap:PROGRAM"
// gives a program CAP_NET_RAW: not every host has setcap.
const leakAgent = "E2E_LEAK_AGENT"

// leakRequest is a role, a server's port or a program to run.
type leakRequest struct {
	Act  *leakRole
	Echo string
	Run  []string // is ended after 20 s
	Env  []string
}

// leakAnswer is the role's result or the program's.
type leakAnswer struct {
	leakResult

	Status int
	Output string
}

func runLeakAgent(mode string) int {
	what, argument, _ := strings.Cut(mode, ":")
	var err error
	switch what {
	case "listen":
		err = listenForLeaks(argument)
	case "act":
		var r leakRole
		if err = json.NewDecoder(os.Stdin).Decode(&r); err == nil {
			err = json.NewEncoder(os.Stdout).Encode(r.act())
		}
	case "echo":
		for port := range strings.SplitSeq(argument, ",") {
			if err = echoOn(port); err != nil {
				break
			}
		}
		if err == nil {
			select {}
		}
	case "x11":
		err = toDisplay(argument)
	case "hold":
		err = holdSockets(argument)
	case "setcap":
		err = unix.Setxattr(argument, "security.capability", fileCapability(unix.CAP_NET_RAW), 0)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func listenForLeaks(path string) error {
	_ = os.Remove(path)
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer func() { _ = c.Close() }()
			var r leakRequest
			if json.NewDecoder(c).Decode(&r) == nil {
				_ = json.NewEncoder(c).Encode(r.do())
			}
		}()
	}
}

func (r leakRequest) do() (a leakAnswer) {
	switch {
	case r.Act != nil:
		a.leakResult = r.Act.act()
	case r.Echo != "":
		if err := echoOn(r.Echo); err != nil {
			a.Err = err.Error()
		}
	default:
		c := exec.Command("timeout", append([]string{"--kill-after=1", "20"}, r.Run...)...)
		c.Env = append(os.Environ(), r.Env...)
		out, err := c.CombinedOutput()
		if err != nil {
			a.Err = err.Error()
		}
		a.Output, a.Status = string(out), c.ProcessState.ExitCode()
	}
	return a
}

// toDisplay sends the text of a file to the X server that Slurm forwards to.
func toDisplay(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	_, display, _ := strings.Cut(os.Getenv("DISPLAY"), ":")
	number, err := strconv.Atoi(strings.TrimSuffix(display, ".0"))
	if err != nil {
		return fmt.Errorf("DISPLAY is %q: %w", os.Getenv("DISPLAY"), err)
	}
	r := leakRole{Proto: "tcp", To: fmt.Sprintf("localhost:%d", 6000+number), Payload: string(text)}.act()
	if !r.Echo {
		return fmt.Errorf("the display does not answer: %s", r.Err)
	}
	return nil
}

// echoOn serves TCP and UDP on a port until the program's end: for both families, or with "/6" behind
// the port for IPv6 alone.
func echoOn(port string) error {
	port, six := strings.CutSuffix(port, "/6")
	family := ""
	if six {
		family = "6"
	}
	l, err := net.Listen("tcp"+family, ":"+port)
	if err != nil {
		return err
	}
	u, err := net.ListenPacket("udp"+family, ":"+port)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	go func() {
		b := make([]byte, 64<<10)
		for {
			n, from, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = u.WriteTo(b[:n], from)
		}
	}()
	return nil
}

// holdSockets makes sockets as a user on a node that is closed, and gives them away at a path: to
// each who connects the one whose address it asks for. Only root can do this; a process of the
// user's own would not live until the job begins.
func holdSockets(path string) error {
	runtime.LockOSThread() // a thread has its own user id for files and sockets
	held := map[string]*os.File{}
	words := strings.Split(path, ",")
	if err := unix.Setfsuid(leakUID); err != nil {
		return err
	}
	for _, w := range words[1:] {
		network, to, _ := strings.Cut(w, "=")
		c, err := net.DialTimeout(network, to, 3*time.Second)
		if err != nil {
			return err
		}
		f, err := c.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			return err
		}
		held[w] = f
	}
	if err := unix.Setfsuid(0); err != nil {
		return err
	}
	_ = os.Remove(words[0])
	l, err := net.Listen("unix", words[0])
	if err != nil {
		return err
	}
	if err = os.Chmod(words[0], 0o666); err != nil {
		return err
	}
	fmt.Println("holding")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		b := make([]byte, 256)
		n, _ := c.Read(b)
		if f := held[string(b[:n])]; f != nil {
			_, _, err = c.(*net.UnixConn).WriteMsgUnix([]byte("x"), unix.UnixRights(int(f.Fd())), nil)
		}
		_ = c.Close()
		if err != nil {
			return err
		}
	}
}

// throughHeld takes a socket from the holder and sends with it.
func (r leakRole) throughHeld() (bool, error) {
	c, err := net.Dial("unix", r.Held)
	if err != nil {
		return false, err
	}
	defer func() { _ = c.Close() }()
	if _, err = fmt.Fprintf(c, "%s=%s", r.Proto, r.To); err != nil {
		return false, err
	}
	b, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := c.(*net.UnixConn).ReadMsgUnix(b, oob)
	if err != nil {
		return false, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) == 0 {
		return false, fmt.Errorf("no socket was given: %w", syscall.EBADF)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return false, err
	}
	f := os.NewFile(uintptr(fds[0]), "held")
	defer func() { _ = f.Close() }()
	held, err := net.FileConn(f)
	if err != nil {
		return false, err
	}
	defer func() { _ = held.Close() }()
	return r.converse(held)
}

const leakUID = 2001 // alice's

// actor is an agent that listens in a job.
type actor struct{ path string }

func (a actor) ask(r leakRequest) (answer leakAnswer) {
	c, err := net.Dial("unix", a.path)
	if err != nil {
		return leakAnswer{leakResult: leakResult{Err: err.Error()}, Status: -1}
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	if err = json.NewEncoder(c).Encode(r); err == nil {
		err = json.NewDecoder(c).Decode(&answer)
	}
	if err != nil {
		return leakAnswer{leakResult: leakResult{Err: err.Error()}, Status: -1}
	}
	return answer
}

// actorAt waits until the agent is there. The homes of the lab's users are one folder for all hosts.
func actorAt(t *testing.T, path string) actor {
	t.Helper()
	path = filepath.Join(fmt.Sprintf("/proc/%d/root", state(t).Supervisor), lab.Directory(), "root", path)
	eventually(t, 60*time.Second, func() bool {
		c, err := net.Dial("unix", path)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}, func() string { return "no agent listens at " + path })
	return actor{path}
}
