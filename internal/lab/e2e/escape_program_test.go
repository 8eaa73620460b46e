//go:build e2e

package e2e_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// escapeIn in the environment makes the test program one that makes an attempt for which there
// is no command.
const escapeIn = "E2E_ESCAPE"

// escapeProgram is where it lies on a node.
const escapeProgram = "/usr/local/bin/escape"

func escapeMain(what string, args []string) int {
	programs := map[string]func([]string) error{
		"handle": printHandle, "open": openHandle, "trace": trace, "keys": keys, "queue": queue,
		"steal": steal, "peek": peek, "bpf": loadBPF, "ringopen": ringOpen, "tree": openTree, "give": give, "take": take,
		"count": count, "tun": makeTUN, "xdp": rawXDP, "exhaust": exhaust, "sockets": holdPorts,
	}
	f, ok := programs[what]
	if !ok {
		fmt.Println("no such attempt:", what)
		return 2
	}
	if err := f(args); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// printHandle prints the handle of a file, as root can.
func printHandle(args []string) error {
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, args[0], 0)
	if err != nil {
		return fmt.Errorf("name_to_handle_at: %w", err)
	}
	fmt.Printf("%d:%s", h.Type(), hex.EncodeToString(h.Bytes()))
	return nil
}

// openHandle opens a file by its handle, through any directory of its file system, and prints it.
func openHandle(args []string) error {
	kind, text, _ := strings.Cut(args[1], ":")
	n, err := strconv.ParseInt(kind, 10, 32)
	if err != nil {
		return err
	}
	b, err := hex.DecodeString(text)
	if err != nil {
		return err
	}
	dir, err := unix.Open(args[0], unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", args[0], err)
	}
	fd, err := unix.OpenByHandleAt(dir, unix.NewFileHandle(int32(n), b), unix.O_RDONLY)
	if err != nil {
		return fmt.Errorf("open_by_handle_at: %w", err)
	}
	buf := make([]byte, 4096)
	got, err := unix.Read(fd, buf)
	if err != nil {
		return err
	}
	fmt.Println(string(buf[:got]))
	return nil
}

// trace attaches to each process of root's that it is told.
func trace(pids []string) error {
	var errs []error
	for _, text := range pids {
		pid, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		if err := unix.PtraceSeize(pid); err != nil {
			errs = append(errs, fmt.Errorf("ptrace %d: %w", pid, err))
			continue
		}
		fmt.Println(loot, "traces", pid) // the end of this process detaches it
	}
	return errors.Join(errs...)
}

// keys puts a key into the user's keyring ("add NAME"), or looks it up there ("find NAME"); "leave NAME"
// and "session NAME" do so with the keyring of the session. Who looks in the user's holds it by a session of his own,
// as after a login: pam_keyinit(8).
func keys(args []string) error {
	user := -4 // KEY_SPEC_USER_KEYRING
	if args[0] == "leave" || args[0] == "session" {
		user = -3 // KEY_SPEC_SESSION_KEYRING
	}
	if args[0] == "add" || args[0] == "leave" {
		_, err := unix.AddKey("user", args[1], []byte(loot), user)
		return err
	}
	if user == -4 {
		runtime.LockOSThread() // whose the session is
		_, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)
		if err == nil {
			_, err = unix.KeyctlInt(unix.KEYCTL_LINK, user, -3, 0, 0)
		}
		if err != nil {
			return fmt.Errorf("keyctl link: %w", err)
		}
	}
	if _, err := unix.KeyctlSearch(user, "user", args[1], 0); err != nil {
		return fmt.Errorf("keyctl search: %w", err)
	}
	fmt.Println(loot, "is in the keyring")
	return nil
}

// queue makes a POSIX message queue of a name.
func queue(args []string) error {
	name, err := unix.BytePtrFromString(args[0])
	if err != nil {
		return err
	}
	if _, _, e := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(name)), unix.O_CREAT|unix.O_RDWR, 0o600, 0, 0, 0); e != 0 {
		return fmt.Errorf("mq_open: %w", e)
	}
	return nil
}
