package lab

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestStepCalls(t *testing.T) {
	t.Parallel()
	t.Run("slurmstepd's own, its threads' and its children's count, up to another program", func(t *testing.T) {
		t.Parallel()
		const traces = `== 10
read(3, "x", 1) = 1
clone(child_stack=NULL, flags=SIGCHLD) = 11
== 11
close(3) = 0
execve("/usr/sbin/slurmstepd", ["slurmstepd"], 0x7 /* 9 vars */) = 0
clone3({flags=CLONE_THREAD} => {parent_tid=[12]}, 88) = 12
clone(child_stack=NULL, flags=SIGCHLD) = 13
--- SIGCHLD {si_signo=SIGCHLD} ---
wait4(13, NULL, 0, NULL) = 13
+++ exited with 0 +++
== 12
poll([], 0, 0) = 0
+++ exited with 0 +++
== 13
setuid(2003) = 0
execve("/nowhere/true", ["true"], 0x7) = -1 ENOENT (No such file or directory)
execve("/usr/bin/true", ["true"], 0x7 /* 9 vars */) = 0
brk(NULL) = 0x55
== 14
execve("/usr/libexec/slurm-enclave/enclave-prolog", ["enclave-prolog"], 0x7 /* 9 vars */) = 0
brk(NULL) = 0x55
`
		assert.Equal(t, 1+3+1+2, stepCalls(traces))
	})
	t.Run("a trace without slurmstepd counts nothing", func(t *testing.T) {
		t.Parallel()
		assert.Zero(t, stepCalls("== 1\nread(3, \"\", 1) = 0\n"))
	})
}
