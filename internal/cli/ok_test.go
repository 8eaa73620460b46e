package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/cli"
	"github.com/slurm-enclave/slurm-enclave/internal/ladder"
)

// ok runs `enclave ok` on a machine of these facts.
func ok(t *testing.T, facts ladder.Facts, args ...string) (out string, status int) {
	t.Helper()
	var b bytes.Buffer
	c := cli.NewOkCommand(func(context.Context, string) ladder.Facts { return facts })
	c.SetOut(&b)
	c.SetErr(&b)
	c.SetArgs(args)
	err := c.ExecuteContext(t.Context())
	if exit, is := errors.AsType[*cli.ExitError](err); is {
		return b.String(), exit.Code
	}
	require.NoError(t, err)
	return b.String(), cli.ExitOK
}

// snpGuest is one whose report verifies and whose kernel has everything.
func snpGuest() ladder.Facts {
	works := ladder.Probe{Tried: true, Works: true}
	return ladder.Facts{
		Root:       true,
		Processor:  ladder.Processor{Vendor: "AuthenticAMD", Family: 0x19, Model: 1, Hypervisor: true, SEV: true, SEVES: true, SNP: true},
		Encryption: ladder.Encryption{TSM: true},
		Attester:   ladder.Attester{Made: true, Verdict: &ladder.Verdict{Genuine: true, Bound: true, Part: "milan", Version: 3}},
		Kernel:     ladder.Kernel{WireGuard: works, TUN: works, NFTables: works, Mounts: works, Cgroup: "unified"},
	}
}

func TestOkStatus(t *testing.T) {
	simulated := func(f *ladder.Facts) { f.Attester.Verdict.Simulated = true }
	for name, c := range map[string]struct {
		change func(*ladder.Facts)
		args   []string
		want   int
	}{
		"every needed rung holds":                     {func(*ladder.Facts) {}, nil, cli.ExitOK},
		"a rung fails":                                {func(f *ladder.Facts) { f.Kernel.Mounts.Works = false }, nil, cli.ExitBelow},
		"no attestation":                              {func(f *ladder.Facts) { f.Attester = ladder.Attester{} }, nil, cli.ExitUnknown},
		"nothing is known":                            {func(f *ladder.Facts) { *f = ladder.Facts{} }, nil, cli.ExitUnknown},
		"a report that is not genuine":                {func(f *ladder.Facts) { f.Attester.Verdict.Genuine = false }, nil, cli.ExitInvalid},
		"a simulated report is below":                 {simulated, nil, cli.ExitBelow},
		"a simulated report may be allowed":           {simulated, []string{"--allow-simulated"}, cli.ExitOK},
		"a simulated report excuses no other rung":    {func(f *ladder.Facts) { simulated(f); f.Kernel.Mounts.Works = false }, []string{"--allow-simulated"}, cli.ExitBelow},
		"allowing makes no attestation where is none": {func(f *ladder.Facts) { f.Attester = ladder.Attester{} }, []string{"--allow-simulated"}, cli.ExitUnknown},
		"a word too many":                             {func(*ladder.Facts) {}, []string{"n1"}, cli.ExitUsage},
	} {
		t.Run(name, func(t *testing.T) {
			f := snpGuest()
			c.change(&f)
			_, status := ok(t, f, c.args...)
			assert.Equal(t, c.want, status)
		})
	}
}

func TestOkPrints(t *testing.T) {
	t.Run("the ladder, and its conclusion last", func(t *testing.T) {
		f := snpGuest()
		out, _ := ok(t, f)
		assert.Equal(t, ladder.Climb(f).String(), out)
	})
	t.Run("JSON holds ladder, exit status and facts", func(t *testing.T) {
		f := snpGuest()
		f.Attester.Verdict.Simulated = true
		out, status := ok(t, f, "--json")
		var got struct {
			Machine, Outcome, Conclusion string
			Simulated                    bool
			Exit                         int
			Rows                         []ladder.Row
			Facts                        ladder.Facts
		}
		require.NoError(t, json.Unmarshal([]byte(out), &got))
		assert.Equal(t, f, got.Facts)
		assert.Equal(t, status, got.Exit)
		assert.True(t, got.Simulated)
		assert.Equal(t, ladder.Climb(f).Rows, got.Rows)
		assert.True(t, strings.HasPrefix(got.Conclusion, "SIMULATED"))
	})
	t.Run("what a hypervisor says reaches no terminal", func(t *testing.T) {
		f := snpGuest()
		f.Processor.HypervisorVendor, f.Processor.Name = "\x1b[2J", "EPYC\r\n\x00PASS"
		out, _ := ok(t, f)
		assert.NotContains(t, strings.ReplaceAll(out, "\n", ""), "\x1b")
		assert.NotContains(t, out, "\r")
		assert.NotContains(t, out, "\x00")
		assert.NotContains(t, out, "\nPASS\n")
	})
}
