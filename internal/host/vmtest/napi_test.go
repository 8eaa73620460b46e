//go:build vm && vmlong

package vmtest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const threaded = "/sys/class/net/" + device + "/threaded"

// TestP4ThreadedNAPI measures what threaded NAPI costs a node with many peers on the kernel's device, and logs it: the
// threads, the kernel's memory, and the time to turn it on and to delete the link. Times are an emulated processor's.
func TestP4ThreadedNAPI(t *testing.T) {
	f := boot(t)
	n1 := f.nodes[0]
	for _, peers := range []int{256, 1000} {
		for _, on := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d peers, threaded %t", peers, on), func(t *testing.T) { n1.napi(t, crowd(t, n1.orders, peers), on) })
		}
	}
	t.Run("it can't be set before there are peers", func(t *testing.T) {
		n1.Run(t, "ip", "link", "add", "w0", "type", "wireguard")
		defer n1.Run(t, "ip", "link", "del", "w0")
		out, ok := n1.Try("sh", "-c", "echo 1 >/sys/class/net/w0/threaded")
		assert.False(t, ok, out)
		t.Logf("refused: %s", strings.TrimSpace(out))
	})
}

// napi brings a mesh up, has threaded NAPI on or off, and takes it down again.
func (n *node) napi(t *testing.T, o orders, on bool) {
	t.Helper()
	began := time.Now()
	require.Contains(t, n.do(t, "up", o), "up driver wireguard")
	up := time.Since(began)
	defer n.down(t) // when something below fails
	def := strings.TrimSpace(n.Run(t, "cat", threaded))
	before, want, setting := n.memory(t), 0, "0"
	if on {
		want, setting = len(o.Peers)-1, "1"
	}
	began = time.Now()
	n.Run(t, "sh", "-c", "echo "+setting+" >"+threaded)
	set := time.Since(began)
	threads := strings.Fields(n.Run(t, "sh", "-c", "grep -l ^napi/"+device+" /proc/[0-9]*/comm || true"))
	assert.Len(t, threads, want)
	after := n.memory(t)
	began = time.Now()
	n.Run(t, "ip", "link", "del", device)
	t.Logf("the kernel's default %s; up %d ms; set %d ms; %d threads; kernel stacks %+d kB; free memory %+d kB; link deleted in %d ms", def, up.Milliseconds(),
		set.Milliseconds(), len(threads), after[0]-before[0], after[1]-before[1], time.Since(began).Milliseconds())
}

// memory is how much the kernel's stacks take, and how much is free, in kB.
func (n *node) memory(t *testing.T) (kB [2]int) {
	t.Helper()
	out := n.Run(t, "sed", "-n", `s/^\(KernelStack\|MemFree\): *\([0-9]*\) kB/\1 \2/p`, "/proc/meminfo")
	for line := range strings.Lines(out) {
		var name string
		var v int
		_, err := fmt.Sscan(line, &name, &v)
		require.NoError(t, err)
		if name == "KernelStack" {
			kB[0] = v
		} else {
			kB[1] = v
		}
	}
	return kB
}
