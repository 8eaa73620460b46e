// Package capability tries what an enclave needs of this kernel: WireGuard, TUN, nftables, the
// mount calls, a cgroup hierarchy.
//
// Each is really done, in network and mount namespaces that end with the call, so that nothing
// of it is ever seen on the machine. Modules that the kernel loads for it stay loaded, as they
// do after a job. Only root can try. internal/posture calls it.
package capability

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/fence"
	"github.com/slurm-enclave/slurm-enclave/internal/host/filter"
	"github.com/slurm-enclave/slurm-enclave/internal/host/link"
	"github.com/slurm-enclave/slurm-enclave/internal/ladder"
)

var errLacks = errors.New("the kernel does not have it")

// Try tries everything. The context bounds what talks to the kernel.
func Try(ctx context.Context) ladder.Kernel {
	done := make(chan ladder.Kernel, 1)
	go onThread(func() { done <- try(ctx) })
	return <-done
}

// onThread runs f on a thread that ends with it, and its namespaces with the thread. The first
// thread of a process never ends, and /proc/self shows its namespaces as the process's: on it,
// this waits until f has run on another.
func onThread(f func()) {
	runtime.LockOSThread() // never unlocked where f runs
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread()
		f()
	}()
	<-ended
	runtime.UnlockOSThread()
}

func try(ctx context.Context) ladder.Kernel {
	k := ladder.Kernel{Cgroup: cgroup()}
	if err := apart(); err != nil {
		untried := ladder.Probe{Reason: err.Error()}
		k.WireGuard, k.TUN, k.NFTables, k.Mounts = untried, untried, untried, untried
		return k
	}
	k.WireGuard = probe(func() error {
		ok, err := link.Kernel{}.Available(ctx)
		if err == nil && !ok {
			err = errLacks
		}
		return err
	})
	k.TUN = probe(tun)
	k.NFTables = probe(func() error { return nftables(ctx) })
	k.Mounts = probe(mounts)
	return k
}

func probe(f func() error) ladder.Probe {
	if err := f(); err != nil {
		return ladder.Probe{Tried: true, Reason: err.Error()}
	}
	return ladder.Probe{Tried: true, Works: true}
}

// apart takes this thread out of the machine's namespaces.
func apart() error {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return fmt.Errorf("make namespaces: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	return nil
}

func tun() error {
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// nftables puts a job's whole fence in and reads it back: sets, marks, notrack, reject, counters.
// The job and its addresses exist nowhere (RFC 5737).
func nftables(ctx context.Context) error {
	server := func(port uint16) fence.Server {
		return fence.Server{Addresses: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, 1})}, Port: port}
	}
	table, err := fence.Plan(fence.Input{
		Key: enclave.JobKey{Cluster: "trial", Job: 1}, UID: 1000, UIDMin: 1000, Device: "enc1",
		FwMark: 0xa8000001, Mark: 0xac000001, WireGuardPort: 51820,
		Slurmctld: server(6817), Slurmd: server(6818), Enclaved: server(6830),
		SubmitHost: server(0).Addresses, SrunPorts: fence.PortRange{First: 61001, Last: 61200}, Interactive: true,
	})
	if err != nil {
		return err
	}
	return fence.Up(ctx, filter.Kernel{}, table)
}

// mounts does what a job's view takes: copy a mount, set its options, move it to a place.
func mounts() error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open_tree: %w", err)
	}
	defer func() { _ = unix.Close(tree) }()
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV, Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return fmt.Errorf("mount_setattr: %w", err)
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount: %w", err)
	}
	return nil
}

// cgroup says by which hierarchy Slurm can tell a job's processes from others.
func cgroup() string {
	const root = "/sys/fs/cgroup"
	var st unix.Statfs_t
	if unix.Statfs(root, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		return "unified"
	}
	if unix.Statfs(root+"/freezer", &st) == nil && st.Type == unix.CGROUP_SUPER_MAGIC {
		return "freezer"
	}
	return ""
}
