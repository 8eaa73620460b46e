package againtest_test

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/againtest"
)

func TestOuter(t *testing.T) {
	if againtest.Outer(t, unix.CLONE_NEWNS|unix.CLONE_NEWPID, "GIVEN=yes") {
		return
	}
	assert.Equal(t, 1, os.Getpid(), "the namespace's first process")
	assert.Equal(t, "yes", os.Getenv("GIVEN"))
	self, err := os.Readlink("/proc/self")
	require.NoError(t, err)
	assert.Equal(t, "1", self, "/proc is the namespace's")
}

// TestInnerRunCounts runs itself in ways that must not pass for a pass.
func TestInnerRunCounts(t *testing.T) {
	switch os.Getenv("HOW") {
	case "fail":
		t.Fatal("as asked")
	case "quit":
		os.Exit(0) // before the test has passed
	case "fail outer", "quit outer":
		how := os.Getenv("HOW")[:4]
		againtest.Run(t, nil, "HOW="+how)
		return
	}
	for _, how := range []string{"fail outer", "quit outer"} {
		t.Run(how, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestInnerRunCounts$", "-test.v")
			cmd.Env = append(os.Environ(), "HOW="+how)
			out, err := cmd.CombinedOutput()
			require.Error(t, err, "%s", out)
			assert.Contains(t, string(out), "run TestInnerRunCounts again")
		})
	}
}

func TestRunAsAnotherUser(t *testing.T) {
	if os.Getenv("USER_TEST") != "" {
		assert.Equal(t, 42001, os.Getuid())
		return
	}
	againtest.Root(t)
	againtest.Run(t, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 42001, Gid: 42001, Groups: []uint32{}}}, "USER_TEST=1")
}
