package scale_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
	"github.com/slurm-enclave/slurm-enclave/internal/host/againtest"
	"github.com/slurm-enclave/slurm-enclave/internal/lab/scale"
)

// TestMain is also the process that is measured, which Run starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "serve" {
		args := append(os.Args[2:], "")
		if err := scale.Serve(context.Background(), args[0], args[1], os.Stdin, logrus.New()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 2 && os.Args[1] == scale.DeviceCommand {
		if err := scale.Device(context.Background(), os.NewFile(3, "orders"), os.NewFile(4, "words")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// measure runs a bring-up and gives the lines that it printed.
func measure(t *testing.T, o scale.Options) []string {
	t.Helper()
	o.Directory, o.Server = t.TempDir(), []string{os.Args[0], "serve"}
	_, err := attesttest.NewHierarchy(filepath.Join(o.Directory, "chips"), attesttest.SmallKeys())
	require.NoError(t, err)
	var out bytes.Buffer
	require.NoError(t, scale.Run(t.Context(), o, &out), out.String())
	assert.NoDirExists(t, filepath.Join(o.Directory, "run"), "nothing but the chips is left")
	return strings.Split(strings.TrimSpace(out.String()), "\n")
}

func TestABringUpEndsInOneLine(t *testing.T) {
	profiles := filepath.Join(t.TempDir(), "made", "for it")
	lines := measure(t, scale.Options{Nodes: 12, Sample: 0.25, Twice: true, Profile: profiles})
	last := lines[len(lines)-1]
	assert.Regexp(t, `^scale: n=12 last_evidence_to_last_go_ms=\d+ cpu_s=\d+\.\d\d verify_ratio=\d+\.\d\d rss_mb=\d+ roster_bytes=\d+$`, last)
	all := strings.Join(lines[:len(lines)-1], "\n")
	assert.NotContains(t, all, "scale: ")
	assert.Contains(t, all, "3 nodes fetched all leaves")
	assert.Contains(t, all, "n00001 posted twice: one answer for both")
	for _, name := range []string{"cpu.pprof", "heap.pprof", "memory.txt"} {
		info, err := os.Stat(filepath.Join(profiles, name))
		require.NoError(t, err)
		assert.Positive(t, info.Size(), name)
	}
}

// number is what a line of the output says in its first group.
func number(t *testing.T, lines []string, pattern string) (words []string, first float64) {
	t.Helper()
	found := regexp.MustCompile(pattern).FindStringSubmatch(strings.Join(lines, "\n"))
	require.NotNil(t, found, "%s is not in\n%s", pattern, strings.Join(lines, "\n"))
	first, err := strconv.ParseFloat(found[1], 64)
	require.NoError(t, err)
	return found, first
}

func TestAStragglerIsTheSlowestToComeAndNotToGo(t *testing.T) {
	const spread, late = 50, 300
	lines := measure(t, scale.Options{Nodes: 5, Straggler: late * time.Millisecond, Spread: spread * time.Millisecond})
	words, first := number(t, lines, `evidence from (\d+) to (\d+) ms after`)
	last, err := strconv.ParseFloat(words[2], 64)
	require.NoError(t, err)
	assert.GreaterOrEqual(t, last, float64(spread+late), "the straggler's turn comes so long after all others'")
	words, waited := number(t, lines, `slowest node n0000[1-4]: (\d+) ms from its evidence to its GO`)
	assert.GreaterOrEqual(t, waited, last-first-1, "%s: who came first waited for the straggler, who came last and waited least", words[0])
}

func TestALostNodeLetsNobodyIn(t *testing.T) {
	lines := measure(t, scale.Options{Nodes: 4, Lost: true})
	assert.Contains(t, lines[len(lines)-1], "scale: n=4 lost=n00004 refused=3 codes=E501:3 ")
}

func TestAFewNodesHaveADevice(t *testing.T) {
	againtest.Root(t)
	t.Run("with every other node as its peer", func(t *testing.T) {
		lines := measure(t, scale.Options{Nodes: 12, Devices: 3})
		number(t, lines, `# 3 nodes with a WireGuard device \(\w+\) of (11) peers: up and read back in \d+ to \d+ ms, gone in \d+ to \d+ ms`)
		number(t, lines, `(3) nodes fetched all leaves`)
	})
	t.Run("of a start that is refused none is made", func(t *testing.T) {
		lines := measure(t, scale.Options{Nodes: 4, Devices: 2, Lost: true})
		assert.Contains(t, lines[len(lines)-1], "refused=3 codes=E501:3 ")
		assert.NotContains(t, strings.Join(lines, "\n"), "WireGuard")
	})
}

func TestOptionsThatMakeNoSense(t *testing.T) {
	for _, o := range []scale.Options{{Nodes: 1}, {Nodes: 70000}, {Nodes: 5, Sample: 2}, {Nodes: 5, Lost: true, Twice: true}, {Nodes: 5, Devices: 6}, {Nodes: 5, Devices: -1}} {
		require.Error(t, scale.Run(t.Context(), o, &bytes.Buffer{}), "%+v", o)
	}
}
