package machine

import (
	"fmt"
	"os/exec"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/againtest"
	"github.com/slurm-enclave/slurm-enclave/internal/host/process"
)

// TestWhatIsMadeInAHostCanBePinned: on whichever processor.
func TestWhatIsMadeInAHostCanBePinned(t *testing.T) {
	againtest.Root(t)
	for range 5 {
		require.NoError(t, process.Aside(func() error {
			if err := unshareMounts(); err != nil {
				return err
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return err
			}
			if err := unix.Mount("tmpfs", "/mnt", "tmpfs", 0, ""); err != nil {
				return err
			}
			for cpu := range runtime.NumCPU() {
				pin := fmt.Sprintf("touch /mnt/%d && exec taskset -c %d unshare --mount=/mnt/%d true", cpu, cpu, cpu)
				if out, err := exec.CommandContext(t.Context(), "sh", "-c", pin).CombinedOutput(); err != nil {
					return fmt.Errorf("on processor %d: %w: %s", cpu, err, out)
				}
			}
			return nil
		}))
	}
}
