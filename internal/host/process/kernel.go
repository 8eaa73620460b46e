package process

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// BootID is the kernel's name for this boot.
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSuffix(string(b), "\n"), nil
}

// Boottime is CLOCK_BOOTTIME in nanoseconds: it runs on in suspend and nobody can set it.
func Boottime() (int64, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0, fmt.Errorf("read boot clock: %w", err)
	}
	return ts.Nano(), nil
}

// SubordinateIDs reads /etc/subuid for one user. A missing file has no line.
func SubordinateIDs(user string, uid, least uint32) ([]enclave.UIDRange, error) {
	f, err := os.Open("/etc/subuid")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read subordinate ids: %w", err)
	}
	defer func() { _ = f.Close() }()
	return ParseSubuid(f, user, uid, least)
}

// ParseSubuid reads the ranges of one user, who is named by name or number. A line of that user
// that cannot be read, or that reaches below least, is an error: newuidmap may read it otherwise
// and hand out ids that the fence does not know.
func ParseSubuid(r io.Reader, user string, uid, least uint32) ([]enclave.UIDRange, error) {
	number := strconv.FormatUint(uint64(uid), 10)
	var ranges []enclave.UIDRange
	s := bufio.NewScanner(r)
	for n := 1; s.Scan(); n++ {
		owner, rest, _ := strings.Cut(s.Text(), ":")
		if owner = strings.TrimSpace(owner); owner != user && owner != number {
			continue
		}
		first, count, _ := strings.Cut(rest, ":")
		start, errStart := strconv.ParseUint(strings.TrimSpace(first), 10, 32)
		size, errSize := strconv.ParseUint(strings.TrimSpace(count), 10, 32)
		if errStart != nil || errSize != nil {
			return nil, fmt.Errorf("parse subordinate ids: line %d: %q", n, s.Text())
		}
		one := enclave.UIDRange{Start: uint32(start), Count: uint32(size)}
		if one.Count == 0 {
			continue // grants nothing
		}
		if err := one.Check(); err != nil {
			return nil, fmt.Errorf("parse subordinate ids: line %d: %w", n, err)
		}
		if one.Start < least {
			return nil, fmt.Errorf("parse subordinate ids: line %d: %s reaches below the least user id %d", n, one, least)
		}
		ranges = append(ranges, one)
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("parse subordinate ids: %w", err)
	}
	return ranges, nil
}
