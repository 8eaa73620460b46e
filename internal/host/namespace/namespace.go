// Package namespace looks at mount namespaces that are pinned to a file, as Slurm pins a job's, and
// runs programs in them.
//
// A program of Go's can't enter a mount namespace by itself: its threads share one root directory,
// and the kernel moves no such process. What runs inside is therefore a second process, which enters
// on one thread and becomes the program by exec at once.
package namespace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	pinFD   = 3      // where Enter finds the namespace
	getKind = 0xb703 // NS_GET_NSTYPE of ioctl_ns(2)
	itself  = "/proc/self/exe"
)

// Pin is a mount namespace that a file keeps.
type Pin struct {
	Path string
	ID   uint64 // its inode on nsfs, as in mnt:[ID]
	file *os.File
}

// Open opens a pin. It refuses a file that is no mount namespace, and the caller's own namespace.
func Open(path string) (*Pin, error) {
	if path == "" {
		return nil, errors.New("open namespace: Slurm names none")
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("open namespace %s: %w", path, err)
	}
	p := &Pin{Path: path, file: os.NewFile(uintptr(fd), path)}
	if err = p.look(fd); err != nil {
		return nil, errors.Join(fmt.Errorf("open namespace %s: %w", path, err), p.Close())
	}
	return p, nil
}

func (p *Pin) look(fd int) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return err
	}
	if fs.Type != unix.NSFS_MAGIC {
		return errors.New("it is no namespace")
	}
	kind, err := unix.IoctlRetInt(fd, getKind)
	if err != nil {
		return err
	}
	if kind != unix.CLONE_NEWNS {
		return errors.New("it is a namespace, and not one of mounts")
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err != nil {
		return err
	}
	p.ID = st.Ino
	own, err := Own()
	if err == nil && own == p.ID {
		err = errors.New("it is the node's own")
	}
	return err
}

// Close lets go of the pin; the namespace stays as long as its file does.
func (p *Pin) Close() error { return p.file.Close() }

// Own is the number of the caller's mount namespace.
func Own() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/mnt", &st); err != nil {
		return 0, fmt.Errorf("look at the own mount namespace: %w", err)
	}
	return st.Ino, nil
}

// Run runs a program in the namespace with words and input, and gives its output. The program must
// call Enter when its first word is EnterWord.
func (p *Pin) Run(ctx context.Context, program string, words []string, input []byte) ([]byte, error) {
	cmd := command(ctx, program, append([]string{EnterWord}, words...), input)
	cmd.ExtraFiles = []*os.File{p.file} // pinFD
	return finish(cmd)
}

// Rehearse runs a program in a new namespace, a copy of the caller's that ends with it.
func Rehearse(ctx context.Context, program string, words []string, input []byte) ([]byte, error) {
	cmd := command(ctx, program, words, input)
	cmd.SysProcAttr.Unshareflags = unix.CLONE_NEWNS
	return finish(cmd)
}

func command(ctx context.Context, program string, words []string, input []byte) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, words...)
	cmd.Dir, cmd.Env, cmd.Stdin = "/", []string{}, bytes.NewReader(input)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// finish gives the output also of a program that failed: it says why there.
func finish(cmd *exec.Cmd) ([]byte, error) {
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	runtime.LockOSThread() // the parent-death signal follows the thread that forked
	defer runtime.UnlockOSThread()
	if err := cmd.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("run %s in a namespace: %w: %s", cmd.Path, err, strings.TrimSpace(errOut.String()))
	}
	return out.Bytes(), nil
}

// EnterWord is the first word of a program that is to enter the namespace of Run.
const EnterWord = "enter"

// Enter moves this process into the namespace that Run handed over and begins it anew there, with
// the words that follow EnterWord. It returns only when that fails.
func Enter(name string, words []string) error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("enter namespace: %w", err)
	}
	if err := unix.Setns(pinFD, unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter namespace: %w", err)
	}
	unix.CloseOnExec(pinFD) // what runs inside holds nothing of the outside
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter namespace: %w", err)
	}
	return fmt.Errorf("begin anew in namespace: %w", unix.Exec(itself, append([]string{name}, words...), []string{}))
}
