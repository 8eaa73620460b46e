//go:build vm && vmlong

package vmtest_test

import "testing"

// TestP2LongSuitesOnKernelWireGuard runs what is too long for an emulated processor, and for time
// limits that were made for a real one: its failures are to be read, not counted.
func TestP2LongSuitesOnKernelWireGuard(t *testing.T) {
	suite{pkg: "tunnel", run: muchWork, says: "PASS"}.inside(t, machines.big(t))
}
