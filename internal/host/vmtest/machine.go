// Package vmtest boots machines for tests: QEMU with Debian's cloud kernel and a small initial
// file system, so that what the project does to a kernel is tried on one that has WireGuard and
// cgroup v2, whatever the host's has. It is for tests only. It needs no root and no /dev/kvm,
// and touches nothing of the host's network: machines are joined by a wire inside the test.
package vmtest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Options say what a machine is made of.
type Options struct {
	Name       string
	Directory  string // for its console, of its own
	Processors int    // 0 is 1
	Memory     int    // MiB, 0 is 384
	Wires      []*Hub
	Disks      []string // files, raw, of its own: /dev/vda and so on. They outlive the machine
	Index      byte     // last byte of its Ethernet addresses, of its own among the machines of a hub
}

// Machine is a running one. It ends with Stop, and with the test's process however that ends.
type Machine struct {
	Name string

	cmd     *exec.Cmd
	console string
	port    net.Conn
	ended   chan struct{}
	exit    error           // after ended
	said    strings.Builder // QEMU's own words, after ended

	mu    sync.Mutex
	next  int
	procs map[int]*Process
}

const (
	bootTime      = 3 * time.Minute // several machines may share one slow processor
	defaultMemory = 384             // MiB
)

// Boot starts a machine; Await waits for it.
func Boot(img Image, o Options) (*Machine, error) {
	m := &Machine{Name: o.Name, procs: map[int]*Process{}, ended: make(chan struct{}), console: filepath.Join(o.Directory, o.Name+".console")}
	m.procs[0] = newProcess(m, 0)
	if err := m.start(img, o); err != nil {
		return nil, fmt.Errorf("start machine %s: %w", o.Name, err)
	}
	return m, nil
}

// Await waits until the machine's agent is up.
func (m *Machine) Await() error {
	if !m.procs[0].Says("up", bootTime) {
		return fmt.Errorf("machine %s does not come up: %s\nits console:\n%s", m.Name, m.procs[0].Output(), m.Console())
	}
	return m.clock()
}

func (m *Machine) start(img Image, o Options) error {
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return fmt.Errorf("%w: run make deps", err)
	}
	files, err := m.files(o)
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	if err != nil {
		return err
	}
	m.cmd = exec.Command("nice", append([]string{"-n", "10", qemu}, arguments(img, o, m.console)...)...)
	m.cmd.ExtraFiles = files
	m.cmd.Stdout, m.cmd.Stderr = &m.said, &m.said
	// A test that is killed takes its machines with it.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL, Setpgid: true}
	started := make(chan error)
	go func() {
		// The signal comes when the thread that started the machine ends: it lives as long.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := m.cmd.Start()
		started <- err
		if err == nil {
			m.exit = m.cmd.Wait()
			close(m.ended)
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	go m.listen()
	return nil
}

// files are what QEMU inherits, from descriptor 3 on: the agent's port, and one for each wire.
func (m *Machine) files(o Options) ([]*os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket pair: %w", err)
	}
	files := []*os.File{os.NewFile(uintptr(pair[0]), "agent")}
	ours := os.NewFile(uintptr(pair[1]), "test")
	m.port, err = net.FileConn(ours)
	if err = errors.Join(err, ours.Close()); err != nil {
		return files, fmt.Errorf("open agent's port: %w", err)
	}
	for _, h := range o.Wires {
		f, err := h.port()
		if err != nil {
			return files, err
		}
		files = append(files, f)
	}
	return files, nil
}

// processor is all that QEMU can emulate but what costs most of the time there and nothing on silicon: string
// instructions, which are a loop over bytes, a fifth level of page tables, and what ends a block of translated
// instructions at each of the kernel's accesses to a program's memory.
const processor = "max,-erms,-fsrm,-la57,-smap,-smep,-pku"

// kernelLine spares memory that is cleared before each use, addresses that differ at each boot, and most of the wait for
// all processors to have passed through the scheduler, of which there are several in the end of each link. The kernel is
// not to test its timer, and panic, when the machine got no processor for the length of ten ticks.
const kernelLine = "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off no_timer_check " +
	"rcupdate.rcu_expedited=1 init_on_alloc=0 randomize_kstack_offset=off nokaslr machine="

// arguments are QEMU's.
func arguments(img Image, o Options, console string) []string {
	a := []string{
		"-accel", Accelerator(), "-cpu", processor, "-machine", "q35", "-nodefaults", "-display", "none", "-no-reboot",
		"-smp", strconv.Itoa(max(1, o.Processors)), "-m", strconv.Itoa(max(defaultMemory, o.Memory)),
		"-kernel", img.kernel, "-initrd", img.initrd,
		"-append", kernelLine + o.Name,
		"-chardev", "file,id=console,path=" + console, "-serial", "chardev:console",
		"-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
		"-chardev", "socket,id=agent,fd=3", "-device", "virtserialport,chardev=agent,name=agent",
	}
	for i := range o.Wires {
		a = append(a, "-netdev", fmt.Sprintf("stream,id=w%d,server=off,addr.type=fd,addr.str=%d", i, 4+i),
			"-device", fmt.Sprintf("virtio-net-pci,netdev=w%d,mac=%s,romfile=", i, Ethernet(i, o.Index)))
	}
	for i, d := range o.Disks {
		a = append(a, "-drive", fmt.Sprintf("file=%s,if=none,format=raw,id=d%d", d, i), "-device", fmt.Sprintf("virtio-blk-pci,drive=d%d", i))
	}
	return a
}

// Ethernet is the address of a machine's card.
func Ethernet(wire int, index byte) net.HardwareAddr {
	return net.HardwareAddr{0x52, 0x54, 0, 0, byte(wire), index}
}

// listen takes the agent's words until the machine ends.
func (m *Machine) listen() {
	in := bufio.NewScanner(m.port)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		var w word
		if err := json.Unmarshal(in.Bytes(), &w); err != nil {
			continue // the machine's first moments
		}
		m.mu.Lock()
		p := m.procs[w.ID]
		m.mu.Unlock()
		if p != nil {
			p.hear(w)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.procs {
		p.hear(word{Ended: true, Error: "the machine ended"})
	}
}

// Stop ends the machine: nothing in it is worth an orderly end.
func (m *Machine) Stop() {
	_ = m.cmd.Process.Kill()
	<-m.ended
	_ = m.port.Close()
}

// qemu is what QEMU itself said, once it has ended.
func (m *Machine) qemu() string {
	select {
	case <-m.ended:
		return fmt.Sprintf("\nqemu: %v\n%s", m.exit, m.said.String())
	default:
		return ""
	}
}

// Console is what the kernel said last.
func (m *Machine) Console() string {
	b, err := os.ReadFile(m.console)
	if err != nil {
		return err.Error()
	}
	b = append(b, m.qemu()...)
	const most = 8000
	return string(b[max(0, len(b)-most):])
}
