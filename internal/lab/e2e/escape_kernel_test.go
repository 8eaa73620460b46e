//go:build e2e

package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestEscapeKernel makes attempts that no command of a shell makes. P1, P3.
func TestEscapeKernel(t *testing.T) {
	idle(t)
	copySelf(t, "n1", escapeProgram)
	must(t, "n1", "root", "sh", "-c", devices+"; chmod 755 "+escapeProgram+"; echo LOOT-OF-BOB >"+secret+"; chmod 755 "+otherTree+"; chmod 644 "+secret)
	t.Cleanup(func() {
		on(t, "n1", "root", "rm", "-rf", secret, tenantTree+mailbox, tunDevice, fuseDevice)
		on(t, "n1", "root", "chmod", "770", otherTree)
	})
	// One that waits outside for the job to come: the prolog has to end it.
	background(t, "n1", "root", "env", escapeIn+"=give", escapeProgram, "early", siteRoot)
	eventually(t, 10*time.Second, func() bool { return on(t, "n1", "root", "grep", "-q", "@early", "/proc/net/unix").status == 0 },
		func() string { return "nobody waits with a descriptor" })
	must(t, "n1", "root", "sh", "-c", plant)
	t.Cleanup(func() { on(t, "n1", "root", "rm", "-rf", tenantTree+"/planted") })
	p := imprison(t)
	judge(t, "kernel", p, kernelAttempts(p))
}

func kernelAttempts(p prison) []attempt {
	program := func(what string) string { return escapeIn + "=" + what + " " + escapeProgram + " " }
	const daemons = "$(pgrep 'enclave-keeper|slurmd|slurmstepd')"
	shut := opened(p, "the root-only folder opened", "chmod 755 /srv/enclave-fs", "chmod 700 /srv/enclave-fs")
	return []attempt{
		{name: "take descriptors from keeper, slurmd, slurmstepd (pidfd_getfd)", try: program("steal") + daemons, control: asRoot()},
		{name: "read the keeper's memory (process_vm_readv)", try: program("peek") + "$(pgrep enclave-keeper)", control: asRoot()},
		{name: "load a program into the kernel (bpf)", try: program("bpf"), control: asRoot()},
		{name: "watch keeper, slurmd, slurmstepd (perf_event_open)", try: program("count") + daemons, control: asRoot()},
		{name: "a TUN device in the node's network", try: program("tun"), control: asRoot()},
		{name: "frames before the fence sees them (AF_XDP)", try: program("xdp"), control: asRoot()},
		{name: "open the other tenant's file by the kernel's thread (io_uring)", try: program("ringopen") + secret, control: shut},
		{
			name: "a descriptor from a process of the user's from before the job", try: program("take") + "early proj/astro/loot",
			control: proof{"from one that root starts now", func(t *testing.T, _ attempt) string {
				t.Helper()
				background(t, "n1", "root", "env", escapeIn+"=give", escapeProgram, "late", siteRoot)
				eventually(t, 10*time.Second, func() bool { return on(t, "n1", "root", "grep", "-q", "@late", "/proc/net/unix").status == 0 },
					func() string { return "nobody waits with a descriptor" })
				return p.run(t, program("take")+"late proj/astro/loot")
			}},
		},
		{name: "clone the root without its covers (open_tree)", try: "unshare -Urm env " + program("tree") + "home/beneath", control: inMounts()},
		{
			name: "an overlay upon the root without its covers", control: inMounts(),
			try: `unshare -Urm sh -c "mount -t tmpfs x /srv; mkdir /srv/u /srv/w; mount -t overlay x -o lowerdir=/,upperdir=/srv/u,workdir=/srv/w /mnt; cat /mnt/home/beneath"`,
		},
		{
			name: "another step's session keyring", try: "srun --overlap env " + program("keys") + "session enclave-other",
			in: func(t *testing.T, s string) string {
				return p.run(t, program("keys")+"leave enclave-other; "+s)
			},
			control: proof{"another user's job in partition cpu", func(t *testing.T, _ attempt) string {
				t.Helper()
				copySelf(t, "c1", escapeProgram)
				must(t, "c1", "root", "chmod", "755", escapeProgram)
				step := []string{"srun", "-Q", "-p", "cpu", "-w", "c1", "env", escapeIn + "=keys", escapeProgram}
				must(t, "login", "alice", append(step, "leave", "enclave-other")...)
				return on(t, "login", "bob", append(step, "session", "enclave-other")...).String()
			}},
		},
	}
}

// steal takes descriptors from each process that it is told.
func steal(pids []string) error {
	var errs []error
	for _, text := range pids {
		pid, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		p, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			errs = append(errs, fmt.Errorf("pidfd_open %d: %w", pid, err))
			continue
		}
		for fd := range 32 {
			if _, err = unix.PidfdGetfd(p, fd, 0); err == nil {
				fmt.Println(loot, "is descriptor", fd, "of", pid)
			}
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// peek reads where a program without relocations begins.
func peek(pids []string) error {
	pid, err := strconv.Atoi(pids[0])
	if err != nil {
		return err
	}
	b := make([]byte, 4)
	local := unix.Iovec{Base: &b[0], Len: 4}
	if _, err = unix.ProcessVMReadv(pid, []unix.Iovec{local}, []unix.RemoteIovec{{Base: 0x400000, Len: 4}}, 0); err != nil {
		return fmt.Errorf("process_vm_readv: %w", err)
	}
	fmt.Printf("%s begins with %q\n", loot, b)
	return nil
}

// loadBPF loads "return 0" as a socket's filter.
func loadBPF([]string) error {
	code := [2]uint64{0xb7, 0x95} // r0 = 0; exit
	licence := [...]byte{'G', 'P', 'L', 0}
	attr := struct {
		kind, n       uint32
		code, licence uint64
		rest          [96]byte
	}{kind: 1, n: 2, code: uint64(uintptr(unsafe.Pointer(&code))), licence: uint64(uintptr(unsafe.Pointer(&licence)))}
	const progLoad = 5
	if _, _, e := unix.Syscall(unix.SYS_BPF, progLoad, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr)); e != 0 {
		return fmt.Errorf("bpf: %w", e)
	}
	fmt.Println(loot, "is in the kernel")
	return nil
}

// ringOpen has a thread of the kernel's open a file.
func ringOpen(args []string) error {
	g, err := newRing()
	if err != nil {
		return err
	}
	name, err := unix.BytePtrFromString(args[0])
	if err != nil {
		return err
	}
	const openat = 18
	if err = g.call(openat, 0, unix.AT_FDCWD, 0, uint64(uintptr(unsafe.Pointer(name))), 0, 0); err != nil {
		return fmt.Errorf("open: %w", err)
	}
	fmt.Println(loot, "is open")
	return nil
}

// openTree looks into a copy of the root's own mount, and of no other.
func openTree(args []string) error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE)
	if err != nil {
		return fmt.Errorf("open_tree: %w", err)
	}
	return printAt(tree, args[0])
}

func printAt(dir int, name string) error {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	b := make([]byte, 4096)
	n, err := unix.Read(fd, b)
	fmt.Println(string(b[:max(n, 0)]))
	return err
}

// give opens a directory as root, becomes alice and gives the descriptor to who connects to an abstract name.
func give(args []string) error {
	dir, err := unix.Open(args[1], unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	if err = errors.Join(unix.Setresgid(leakUID, leakUID, leakUID), unix.Setresuid(leakUID, leakUID, leakUID)); err != nil {
		return err
	}
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		err = unix.Bind(s, &unix.SockaddrUnix{Name: "@" + args[0]})
	}
	if err == nil {
		err = unix.Listen(s, 1)
	}
	for err == nil {
		var c int
		if c, _, err = unix.Accept(s); err == nil {
			err = unix.Sendmsg(c, []byte{0}, unix.UnixRights(dir), nil, 0)
		}
	}
	return err
}

// take takes a directory from who listens at an abstract name and prints a file in it.
func take(args []string) error {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		err = unix.Connect(s, &unix.SockaddrUnix{Name: "@" + args[0]})
	}
	if err != nil {
		return os.NewSyscallError("connect", err)
	}
	b, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(s, b, oob, 0)
	if err != nil {
		return err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) == 0 {
		return errors.Join(err, errors.New("no descriptor came"))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return err
	}
	return printAt(fds[0], args[1])
}

// TestEscapeSessionKeyring: systemd gives slurmd a session keyring, which all jobs of all users
// would share. P4.
func TestEscapeSessionKeyring(t *testing.T) {
	idle(t)
	copySelf(t, "n1", escapeProgram)
	must(t, "n1", "root", "chmod", "755", escapeProgram)
	p := imprison(t)
	t.Cleanup(func() { on(t, "n1", "root", "rm", "-rf", tenantTree+mailbox) })
	const program = escapeIn + "=keys " + escapeProgram
	own := p.run(t, program+" leave enclave-here; "+program+" session enclave-here")
	assert.Contains(t, own, loot, "control: the step finds what it left itself")
	outside := adopted(t, program+" session enclave-here")
	assert.NotContains(t, outside, loot, "it is the step's own keyring")
	require.Contains(t, outside, "keyctl")
}
