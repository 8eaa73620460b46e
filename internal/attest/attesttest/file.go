package attesttest

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// tsmFile is one attribute of an entry.
type tsmFile struct {
	fs.Inode
	entry *tsmEntry
	name  string
	mode  uint32
}

var (
	_ fs.NodeOpener    = (*tsmFile)(nil)
	_ fs.NodeReader    = (*tsmFile)(nil)
	_ fs.NodeWriter    = (*tsmFile)(nil)
	_ fs.NodeFlusher   = (*tsmFile)(nil)
	_ fs.NodeGetattrer = (*tsmFile)(nil)
	_ fs.NodeSetattrer = (*tsmFile)(nil)
)

// tsmHandle is one open file: what it reads is taken once, what it writes counts at close.
type tsmHandle struct {
	mu      sync.Mutex
	content []byte
	loaded  bool
	written []byte
	wrote   bool
}

// Open refuses the direction that the attribute does not have, root or not.
func (f *tsmFile) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	access := flags & syscall.O_ACCMODE
	if (access != syscall.O_WRONLY && f.mode&0o444 == 0) || (access != syscall.O_RDONLY && f.mode&0o222 == 0) {
		return nil, 0, syscall.EACCES
	}
	return &tsmHandle{}, fuse.FOPEN_DIRECT_IO, 0
}

// Read gives what the file held at the first read of this handle.
func (f *tsmFile) Read(ctx context.Context, h fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	handle, ok := h.(*tsmHandle)
	if !ok {
		return nil, syscall.EBADF
	}
	handle.mu.Lock()
	defer handle.mu.Unlock()
	if !handle.loaded {
		b, errno := f.entry.read(ctx, f.name)
		if errno != 0 {
			return nil, errno
		}
		handle.content, handle.loaded = b, true
	}
	if off >= int64(len(handle.content)) {
		return fuse.ReadResultData(nil), 0
	}
	return fuse.ReadResultData(handle.content[off:min(int64(len(handle.content)), off+int64(len(dest)))]), 0
}

// Write gathers; a question has 64 bytes, and one byte more is EINVAL at once.
func (f *tsmFile) Write(_ context.Context, h fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	handle, ok := h.(*tsmHandle)
	if !ok {
		return 0, syscall.EBADF
	}
	handle.mu.Lock()
	defer handle.mu.Unlock()
	if off != int64(len(handle.written)) || len(handle.written)+len(data) > 64 {
		return 0, syscall.EINVAL
	}
	handle.written, handle.wrote = append(handle.written, data...), true
	return uint32(len(data)), 0 // #nosec G115 -- at most 64
}

// Flush hands over what was written. The kernel loses this error; here close reports it.
func (f *tsmFile) Flush(_ context.Context, h fs.FileHandle) syscall.Errno {
	handle, ok := h.(*tsmHandle)
	if !ok {
		return 0
	}
	handle.mu.Lock()
	defer handle.mu.Unlock()
	if !handle.wrote {
		return 0
	}
	handle.wrote = false
	b := bytes.Clone(handle.written)
	handle.written = nil
	return f.entry.write(f.name, b)
}

// Getattr gives the mode; the size is not known before a read.
func (f *tsmFile) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode = syscall.S_IFREG | f.mode
	return 0
}

// Setattr lets O_TRUNC pass, as configfs does.
func (f *tsmFile) Setattr(ctx context.Context, h fs.FileHandle, _ *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return f.Getattr(ctx, h, out)
}

func trim(b []byte) string { return strings.TrimSpace(string(b)) }

func errnoOf(err error) syscall.Errno {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return syscall.EIO
}
