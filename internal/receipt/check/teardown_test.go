package check_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/receipt"
	"github.com/slurm-enclave/slurm-enclave/internal/receipt/check"
)

func TestANodeIsClosedIfAllWasReadBack(t *testing.T) {
	t.Parallel()
	const whole = "boot links rules routes tables sockets mounts processes files ipc"
	for name, tc := range map[string]struct {
		change func(*receipt.Teardown)
		says   string
	}{
		"control: all of it was": {func(*receipt.Teardown) {}, "closed again in 75 ms, read back: " + whole + ";"},
		"sockets are left, whatever the node calls that": {func(w *receipt.Teardown) {
			w.Checks[5].Result, w.Checks[5].Reason = enclave.CheckFail, "+ udp 7000"
		}, "NOT closed: sockets: fail + udp 7000"},
		"routes could not be listed": {func(w *receipt.Teardown) { w.Checks[3].Result = enclave.CheckUnknown }, "NOT closed: routes: unknown"},
		"nothing was asked for":      {func(w *receipt.Teardown) { w.Checks = nil }, "NOT closed: nothing was read back"},
		"the node says why not": {func(w *receipt.Teardown) {
			w.Refusal = enclave.Refuse("E245", enclave.FaultNode, "mounts: + /tmp/x")
		}, "NOT closed: E245"},
		"the node says that it is not": {func(w *receipt.Teardown) { w.Closed = false }, "NOT closed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, false)
			tc.change(&s.Statement.Predicate.Nodes[1].Teardown)
			r := check.Check(seal(t, s), trusting(t, s))
			says := map[string]string{}
			for _, l := range r.Lines {
				if l.Name == "teardown" {
					says[l.Node] = l.Reason
				}
			}
			assert.True(t, strings.HasPrefix(says["n2"], tc.says), says["n2"])
			for _, other := range []string{"n1", "n3"} {
				assert.Contains(t, says[other], "closed again in 75 ms", other)
			}
		})
	}
}
