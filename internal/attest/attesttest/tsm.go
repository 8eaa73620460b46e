package attesttest

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Server is a mounted configfs-tsm.
type Server struct{ server *fuse.Server }

// Mount serves the firmware's reports at dir, which stands for /sys/kernel/config/tsm/report.
func Mount(dir string, w *Firmware) (*Server, error) {
	s, err := fs.Mount(dir, &tsmRoot{firmware: w}, &fs.Options{
		MountOptions: fuse.MountOptions{
			FsName: "slurm-enclave-simulated", Name: "configfs-tsm", DirectMountStrict: true, AllowOther: false,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("mount simulated configfs-tsm at %s: %w", dir, err)
	}
	return &Server{server: s}, nil
}

// Unmount ends it; an open file makes it fail.
func (s *Server) Unmount() error {
	if err := s.server.Unmount(); err != nil {
		return fmt.Errorf("unmount simulated configfs-tsm: %w", err)
	}
	return nil
}

// Wait returns when somebody unmounted it.
func (s *Server) Wait() { s.server.Wait() }

// tsmRoot is the report directory: mkdir makes an entry, rmdir takes it and its files away.
type tsmRoot struct {
	fs.Inode
	firmware *Firmware
}

var (
	_ fs.NodeMkdirer = (*tsmRoot)(nil)
	_ fs.NodeRmdirer = (*tsmRoot)(nil)
)

// Mkdir makes an entry with its files.
func (r *tsmRoot) Mkdir(ctx context.Context, name string, _ uint32, _ *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if r.GetChild(name) != nil {
		return nil, syscall.EEXIST
	}
	e := &tsmEntry{firmware: r.firmware}
	dir := r.NewPersistentInode(ctx, &fs.Inode{}, fs.StableAttr{Mode: syscall.S_IFDIR})
	for file, mode := range map[string]uint32{
		"generation": 0o444, "provider": 0o444, "inblob": 0o222, "outblob": 0o444,
		"auxblob": 0o444, "privlevel": 0o222, "privlevel_floor": 0o444,
	} {
		n := &tsmFile{entry: e, name: file, mode: mode}
		dir.AddChild(file, r.NewPersistentInode(ctx, n, fs.StableAttr{Mode: syscall.S_IFREG}), false)
	}
	return dir, 0
}

// Rmdir removes an entry whatever is in it, as configfs does.
func (r *tsmRoot) Rmdir(_ context.Context, name string) syscall.Errno {
	dir := r.GetChild(name)
	if dir == nil {
		return syscall.ENOENT
	}
	for file, n := range dir.Children() {
		dir.RmChild(file)
		n.ForgetPersistent()
	}
	dir.ForgetPersistent()
	return 0
}

// tsmEntry is the state of one entry (drivers/virt/coco/tsm.c): writes move the generation on,
// and the report is made when it is read and older than the last write.
type tsmEntry struct {
	firmware *Firmware

	mu         sync.Mutex // held while a report is made
	inblob     []byte
	generation uint64 // of the last write
	made       uint64 // generation of the report, 0: none
	report     []byte
	table      []byte
	busy       int // EBUSY given so far
}

// write takes a finished write of inblob or privlevel. It is EBUSY where a report is being made.
func (e *tsmEntry) write(name string, b []byte) syscall.Errno {
	if !e.mu.TryLock() {
		return syscall.EBUSY
	}
	defer e.mu.Unlock()
	switch name {
	case "inblob":
		if len(b) != 64 {
			return syscall.EINVAL
		}
		e.inblob = b
	case "privlevel":
		if n, err := strconv.ParseUint(trim(b), 0, 8); err != nil || n > 3 {
			return syscall.EINVAL
		}
	}
	e.generation++
	return 0
}

// read gives the content of a file as it is now.
func (e *tsmEntry) read(ctx context.Context, name string) ([]byte, syscall.Errno) {
	if name == "provider" {
		f, err := loadFaults(e.firmware.faults)
		if err != nil {
			return nil, fs.ToErrno(syscall.EIO)
		}
		if f.Provider != "" {
			return []byte(f.Provider + "\n"), 0
		}
		return []byte("sev_guest\n"), 0
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch name {
	case "generation":
		return []byte(strconv.FormatUint(e.generation, 10) + "\n"), 0
	case "privlevel_floor":
		return []byte("0\n"), 0
	}
	if errno := e.make(ctx); errno != 0 {
		return nil, errno
	}
	if name == "auxblob" {
		return e.table, 0
	}
	return e.report, 0
}

// make asks the firmware unless the report at hand answers the last write.
func (e *tsmEntry) make(ctx context.Context) syscall.Errno {
	if e.inblob == nil {
		return syscall.EINVAL
	}
	if e.made == e.generation {
		return 0
	}
	f, err := loadFaults(e.firmware.faults)
	if err != nil {
		return syscall.EIO
	}
	if e.busy < f.Busy {
		e.busy++
		return syscall.EBUSY
	}
	report, table, err := e.firmware.Report(ctx, [64]byte(e.inblob))
	if err != nil {
		return errnoOf(err)
	}
	e.report, e.table, e.made = report, table, e.generation
	return 0
}
