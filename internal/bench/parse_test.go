package bench

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func recorded(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".txt"))
	require.NoError(t, err)
	return string(b)
}

func parsed(t *testing.T, text string) Run {
	t.Helper()
	r, err := parseRun(strings.NewReader(text))
	require.NoError(t, err)
	return r
}

func TestParseRun(t *testing.T) {
	t.Parallel()
	t.Run("a run in an enclave has all figures, and says who holds the tunnel", func(t *testing.T) {
		t.Parallel()
		r := parsed(t, recorded(t, "userspace"))
		assert.Equal(t, Userspace, nameOf(r))
		assert.InDelta(t, 163.73, r.value(MPI8), 1e-9)
		assert.InDelta(t, 20772.09, r.value(MPI1M), 1e-9)
		assert.InDelta(t, 32.80, r.value(MPIBW), 1e-9)
		assert.InDelta(t, 0.6, r.value(TCP), 0.1)
		assert.Greater(t, r.value(CPU), 1.0)
		assert.Empty(t, r.Missing)
		require.Len(t, r.Nodes, 2)
		assert.Equal(t, "n1", r.Nodes[0].Node)
		assert.Equal(t, "6.18.44", r.Nodes[0].Kernel)
		assert.InDelta(t, 1.0, r.Nodes[0].Busy, 0.01, "the machine had nothing idle")
	})
	t.Run("nobody holds a tunnel in the clear, and its processor time is 0", func(t *testing.T) {
		t.Parallel()
		r := parsed(t, recorded(t, "plain"))
		assert.Equal(t, Plain, nameOf(r))
		assert.Zero(t, r.value(CPU))
	})
	t.Run("OSU's own text is read, and a missing program is named with its package", func(t *testing.T) {
		t.Parallel()
		r := parsed(t, recorded(t, "osu"))
		assert.Equal(t, Conf, nameOf(r))
		assert.InDelta(t, 1.14, r.value(MPI8), 1e-9)
		assert.InDelta(t, 11034.77, r.value(MPIBW), 1e-9)
		assert.True(t, math.IsNaN(r.value(TCP)), "no figure is invented")
		assert.Equal(t, "iperf3 is not on a1: package iperf3", r.Missing[TCP])
	})
	t.Run("the kernel's tunnel has no processor time that could be told", func(t *testing.T) {
		t.Parallel()
		r := parsed(t, strings.ReplaceAll(recorded(t, "userspace"), "tunnel userspace", "tunnel kernel"))
		assert.Equal(t, Kernel, nameOf(r))
		assert.True(t, math.IsNaN(r.value(CPU)))
		assert.Contains(t, r.Missing[CPU], "kernel")
	})
	t.Run("what iperf3 complains of is told", func(t *testing.T) {
		t.Parallel()
		text := recorded(t, "plain")
		start, end := strings.Index(text, "@begin iperf3\n"), strings.Index(text, "@end iperf3")
		r := parsed(t, text[:start]+"@begin iperf3\n{\"error\": \"unable to connect\"}\n"+text[end:])
		assert.Equal(t, "iperf3: unable to connect", r.Missing[TCP])
		r = parsed(t, text[:start]+"@begin iperf3\n@server address in use\n{\"error\": \"unable to connect\"}\n"+text[end:])
		assert.Equal(t, "iperf3: unable to connect; its server: address in use", r.Missing[TCP])
		assert.True(t, math.IsNaN(r.value(TCP)))
	})
	t.Run("a job that was cut off is no run", func(t *testing.T) {
		t.Parallel()
		text := recorded(t, "plain")
		for cut := range []int{0, 1, 2, 3} {
			_, err := parseRun(strings.NewReader(text[:len(text)*cut/4]))
			require.ErrorIs(t, err, errIncomplete)
		}
	})
	t.Run("one node is no network", func(t *testing.T) {
		t.Parallel()
		_, err := parseRun(strings.NewReader("@fact a kernel 6\n@complete\n"))
		require.ErrorContains(t, err, "1 nodes")
	})
}

func FuzzParseRun(f *testing.F) {
	for _, name := range []string{"plain", "userspace", "openvpn", "osu"} {
		f.Add(recorded(f, name))
	}
	f.Add("@busy a b 1 2\n@ticks ) \n@fact\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseRun(strings.NewReader(text))
		if err != nil {
			return
		}
		require.Len(t, r.Nodes, 2)
		for _, figure := range figures() {
			v := r.value(figure)
			assert.False(t, math.IsInf(v, 0) || v < 0, "%s: %v", figure, v)
		}
	})
}
