package spawn

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/keeper"
)

// Settle makes the calling process the keeper of a job, out of the reach of what ends others:
// slurmd kills the prolog's process group, systemd the cgroup of slurmd's service, Slurm the
// cgroup of the job, and the kernel the largest process.
func Settle(c keeper.Config) error {
	if sid, err := unix.Getsid(0); err != nil || sid != os.Getpid() {
		return fmt.Errorf("not the leader of a session of its own: %w", errors.Join(err, os.ErrInvalid))
	}
	unix.Umask(0o077)
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("change to /: %w", err)
	}
	// The identity stands before all else: from here on StopKeeper finds this process.
	self, err := record(c.Directory)
	if err != nil {
		return err
	}
	// Without CAP_SYS_RESOURCE (a container) the keeper is as easily killed as others, and its
	// death closes more than it opens.
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(oomScore), 0); err != nil && !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("set oom_score_adj: %w", err)
	}
	if err := enterCgroups(cgroupName(c.Directory, self)); err != nil {
		return err
	}
	return seclude()
}

const oomScore = "-900"

// seclude keeps the keys out of core files, other processes' reach and, where it can, swap.
func seclude() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("set not dumpable: %w", err)
	}
	// Best effort: a node without swap needs it not, and a container may forbid it. Pages are
	// locked as they are touched; the Go runtime reserves far more than it uses.
	_ = unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
	return nil
}

// cgroupName is the keeper's cgroup in each hierarchy, beside those of all services. The
// process is part of the name: the nodes of a lab share one machine's hierarchies.
func cgroupName(directory string, who identity) string {
	return fmt.Sprintf("slurm-enclave.%s.%d.%s", filepath.Base(directory), who.pid, who.start)
}
