package survey

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/host/process"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
)

// Sockets are what a closed node must not have: sockets of people, whoever holds them, and those
// that carry a tunnel.
type Sockets struct {
	Least   uint32 // the least user id of people
	Allow   []enclave.UIDRange
	Ports   []uint16 // UDP: WireGuard's, and the probe's
	Control string   // directory of userspace WireGuard's control sockets
}

// socketKinds are the kernel's lists of the calling thread's network namespace (proc(5)).
func socketKinds() []string {
	return []string{"tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6"}
}

// List is a line of text for each. A connection that is only waiting for its last packets belongs
// to nobody any more: the kernel has no inode for it, and it ends by itself.
func (s Sockets) List(context.Context) ([]string, error) {
	var lines []string
	for _, kind := range socketKinds() {
		f, err := os.Open("/proc/thread-self/net/" + kind)
		if errors.Is(err, fs.ErrNotExist) { // a protocol that this kernel does not have
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list sockets: %w", err)
		}
		list, err := ParseSockets(f)
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("list %s sockets: %w", kind, err)
		}
		for _, one := range list {
			if s.left(kind, one) {
				lines = append(lines, fmt.Sprintf("%s %s uid %d", kind, one.Local, one.UID))
			}
		}
	}
	control, err := s.controls()
	return append(lines, control...), err
}

func (s Sockets) left(kind string, one Socket) bool {
	if strings.HasPrefix(kind, "udp") && slices.Contains(s.Ports, one.Local.Port()) {
		return true
	}
	allowed := slices.ContainsFunc(append(process.Daemons(), s.Allow...), func(r enclave.UIDRange) bool {
		return one.UID >= r.Start && one.UID-r.Start < r.Count
	})
	return one.UID >= s.Least && one.Inode != 0 && !allowed
}

// controls are files by which a userspace tunnel of ours is, or was, configured.
func (s Sockets) controls() ([]string, error) {
	entries, err := os.ReadDir(s.Control)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list control sockets: %w", err)
	}
	var lines []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".sock"); ok && mesh.IsDevice(name) {
			lines = append(lines, "control "+name)
		}
	}
	return lines, nil
}

// Socket is one line of the kernel's lists.
type Socket struct {
	Local netip.AddrPort
	UID   uint32
	Inode uint64 // 0 when no descriptor leads to it
}

// ParseSockets reads a file like /proc/net/tcp: a line of headings, then fields of which the second
// is the local address, the eighth the owner and the tenth the inode.
func ParseSockets(r io.Reader) ([]Socket, error) {
	var list []Socket
	lines := bufio.NewScanner(r)
	for first := true; lines.Scan(); first = false {
		if first {
			continue
		}
		f := strings.Fields(lines.Text())
		if len(f) < 10 {
			return nil, fmt.Errorf("parse sockets: line of %d fields", len(f))
		}
		local, err := parseAddress(f[1])
		uid, errUID := strconv.ParseUint(f[7], 10, 32)
		inode, errInode := strconv.ParseUint(f[9], 10, 64)
		if err = errors.Join(err, errUID, errInode); err != nil {
			return nil, fmt.Errorf("parse sockets: %w", err)
		}
		list = append(list, Socket{Local: local, UID: uint32(uid), Inode: inode})
	}
	return list, lines.Err()
}

// parseAddress reads "0100007F:1F90": words of the address in the machine's byte order (SEV-SNP's is little
// endian), and the port.
func parseAddress(s string) (netip.AddrPort, error) {
	text, port, ok := strings.Cut(s, ":")
	b, err := hex.DecodeString(text)
	n, errPort := strconv.ParseUint(port, 16, 16)
	if err = errors.Join(err, errPort); err != nil || !ok || len(b) != 4 && len(b) != 16 {
		return netip.AddrPort{}, fmt.Errorf("address %q: %w", s, errors.Join(err, errAddress))
	}
	for i := 0; i < len(b); i += 4 {
		slices.Reverse(b[i : i+4])
	}
	a, _ := netip.AddrFromSlice(b) // 4 or 16 bytes are always one
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), nil
}

var errAddress = errors.New("want 8 or 32 hexadecimal digits, a colon and a port")
