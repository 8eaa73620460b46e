package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
	"github.com/slurm-enclave/slurm-enclave/internal/certs"
	"github.com/slurm-enclave/slurm-enclave/internal/certs/certstest"
	"github.com/slurm-enclave/slurm-enclave/internal/cli"
	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// store is a controller with a lab's chips and their key server.
type store struct {
	t     *testing.T
	host  cli.Storehouse
	dir   string
	lab   *attesttest.Hierarchy
	kds   *certstest.KDS
	kdsAt string
	chips api.Chips
	away  error
}

func newStore(t *testing.T) *store {
	t.Helper()
	lab, err := attesttest.NewHierarchy(t.TempDir(), attesttest.SmallKeys())
	require.NoError(t, err)
	return storeOf(t, lab)
}

func storeOf(t *testing.T, lab *attesttest.Hierarchy) *store {
	t.Helper()
	s := &store{t: t, dir: filepath.Join(t.TempDir(), "certs"), lab: lab}
	s.kds = certstest.New(t, s.lab)
	s.kdsAt = s.kds.URL
	s.host = cli.Storehouse{
		Settings: func(string) (config.Controller, error) {
			return config.Controller{Certificates: s.dir, KDS: config.KDS{URL: s.kdsAt}}, nil
		},
		Roots:  func(config.Controller) (snp.Roots, error) { return snp.TestRoots(s.lab.Roots()) },
		Chips:  func(context.Context, string) (api.Chips, error) { return s.chips, s.away },
		Server: func(a string) (certs.Getter, error) { return certs.NewKDS(a, "test") },
		Pause:  func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
		Now:    time.Now,
	}
	return s
}

func (s *store) chip(node string) *attesttest.Chip {
	s.t.Helper()
	c, err := s.lab.Chip(node)
	require.NoError(s.t, err)
	return c
}

// enrol makes enclaved know a node, and the key server its chip.
func (s *store) enrol(node string) {
	s.t.Helper()
	c := s.chip(node)
	s.kds.Add("Milan", c)
	s.chips.Chips = append(s.chips.Chips, api.Chip{Node: node, Product: "milan", ChipID: c.ID, TCB: c.TCB, Signer: "VCEK"})
}

func (s *store) run(args ...string) (string, int, error) {
	s.t.Helper()
	var out bytes.Buffer
	root := cli.NewRootCommand(&out, &out, "test", nil, cli.NewCertsCommand(s.host))
	root.SetArgs(append([]string{"certs"}, args...))
	err := root.ExecuteContext(s.t.Context())
	if err == nil {
		return out.String(), cli.ExitOK, nil
	}
	exit, ok := errors.AsType[*cli.ExitError](err)
	require.True(s.t, ok, "%v", err)
	return out.String(), exit.Code, err
}

func (s *store) report(node string, version uint32) string {
	s.t.Helper()
	c := s.chip(node)
	r := c.Report([64]byte{1})
	r.Version = version
	b, err := c.Signed(r)
	require.NoError(s.t, err)
	path := filepath.Join(s.t.TempDir(), "report.bin")
	require.NoError(s.t, os.WriteFile(path, b, 0o600))
	return path
}

func TestCertsSync(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.enrol("n1")
	out, code, err := s.run("sync")
	require.Zero(t, code, "%v", err)
	assert.Contains(t, out, "1 of 3: milan-vcek.crl, the revocation list of milan VCEK\n")
	assert.Contains(t, out, "3 of 3: milan/"+s.chip("n1").ID.String()+"/4-0-24-219.der, the VCEK of n1, milan ")
	assert.Contains(t, out, "3 fetched, 0 as the nodes' hosts gave them, 0 failed\n")
	assert.NotContains(t, out, "\x1b")

	out, code, _ = s.run("sync", "--json")
	assert.Zero(t, code)
	assert.JSONEq(t, `{"fetched":0,"taken":0,"present":3,"failed":[],"notes":[]}`, out)

	out, code, err = s.run("show")
	require.Zero(t, code, "%v", err)
	assert.Contains(t, out, "store "+s.dir+": 3 files\n")
	assert.Contains(t, out, "certificate  yes SIMULATED  ")

	s.enrol("n2")
	out, code, err = s.run("show")
	assert.Equal(t, cli.ExitMissing, code)
	require.ErrorContains(t, err, "1 certificates are missing: enclave certs sync")
	assert.Contains(t, out, "missing: the VCEK of n2, milan ")

	s.host.Terminal = true
	out, code, _ = s.run("sync")
	assert.Zero(t, code)
	assert.Contains(t, out, "\r\x1b[K[........................] 0 of 1  the VCEK of n2")
	assert.Contains(t, out, "[########################] 1 of 1")
}

func TestCertsSyncStatus(t *testing.T) {
	t.Parallel()
	lab := newStore(t).lab
	for name, tt := range map[string]struct {
		change func(*store)
		args   []string
		code   int
		why    string
	}{
		"a server that does not know a chip": {func(s *store) { s.kds.Fail(certstest.Fine, certstest.Fine, certstest.Status(404, "")) }, nil, cli.ExitMissing, "does not have it: status 404"},
		"a wrong certificate":                {func(s *store) { s.kds.Fail(certstest.Fine, certstest.Fine, certstest.Page) }, nil, cli.ExitInvalid, "what the key server gave is not it"},
		"a server that is away":              {func(s *store) { s.kds.Close() }, nil, cli.ExitUnknown, "gives no answer"},
		"no server":                          {func(s *store) { s.kdsAt = "" }, nil, cli.ExitUnknown, "3 files are missing and no server is configured: set controller.kds.url, or say --kds https://kdsintf.amd.com"},
		"a server of the command line":       {func(s *store) { s.kdsAt = "" }, []string{"--kds", "URL"}, cli.ExitOK, ""},
		"a server without TLS":               {func(*store) {}, []string{"--kds", "http://kds.example.org"}, cli.ExitUsage, "is not https"},
		"enclaved that is away": {
			func(s *store) { s.away = enclave.Refuse("E500", enclave.FaultService, "no answer") }, nil, cli.ExitUnknown, "ask enclaved: ",
		},
		"a user without rights":    {func(s *store) { s.away = enclave.Refuse("E134", enclave.FaultRequest, "only admins") }, nil, cli.ExitDenied, "only admins"},
		"an unknown product":       {func(*store) {}, []string{"--product", "rome"}, cli.ExitUsage, "want milan, genoa or turin"},
		"a file that is no report": {func(*store) {}, []string{"--report", "/dev/null"}, cli.ExitInvalid, "is no report"},
		"no file":                  {func(*store) {}, []string{"--report", "/nonexistent"}, cli.ExitFailure, "no such file"},
		"an argument":              {func(*store) {}, []string{"n1"}, cli.ExitUsage, "unknown command"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := storeOf(t, lab)
			s.enrol("n1")
			tt.change(s)
			for i, a := range tt.args {
				if a == "URL" {
					tt.args[i] = s.kds.URL
				}
			}
			_, code, err := s.run(append([]string{"sync"}, tt.args...)...)
			assert.Equal(t, tt.code, code, "%v", err)
			if tt.why != "" {
				require.ErrorContains(t, err, tt.why)
			}
		})
	}
}

func TestCertsSyncForReports(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.kds.Add("Milan", s.chip("n7"))
	s.away = enclave.Refuse("E500", enclave.FaultService, "no answer")
	out, code, err := s.run("sync", "--report", s.report("n7", 3))
	require.Zero(t, code, "%v", err)
	assert.Contains(t, out, "note: the enrolled nodes are left out: ask enclaved: ")
	assert.FileExists(t, filepath.Join(s.dir, "milan", s.chip("n7").ID.String(), "4-0-24-219.der"))

	_, code, err = s.run("sync", "--report", s.report("n7", 2))
	assert.Equal(t, cli.ExitUsage, code)
	require.ErrorContains(t, err, "does not name its product: say --product milan or genoa")
	_, code, err = s.run("sync", "--report", s.report("n7", 2), "--product", "milan")
	require.Zero(t, code, "%v", err)
}

func TestCertsSyncForNodesThatWait(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.enrol("n1")
	s.chips.Chips[0].Pending = true
	out, code, err := s.run("sync")
	require.Zero(t, code, "%v", err)
	assert.Contains(t, out, "note: n1 asked to be enrolled and has no certificate for chip "+s.chip("n1").ID.String()+": --pending fetches it\n")
	assert.Empty(t, s.kds.Log())
	out, _, _ = s.run("show")
	assert.Contains(t, out, "note: n1 asked to be enrolled")
	_, code, err = s.run("sync", "--pending")
	require.Zero(t, code, "%v", err)
	assert.Contains(t, s.kds.Log(), s.chip("n1").ID.String())
}

func TestCertsSyncTakesAndLeavesOut(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.enrol("n1")
	s.chips.Chips[0].Certificate = s.chip("n1").Certificate
	s.chips.Chips = append(s.chips.Chips,
		api.Chip{Node: "n2", Product: "milan", Signer: "VCEK"},
		api.Chip{Node: "n3", Product: "milan", Signer: "VLEK"}, api.Chip{Node: "n4\x1b[2J", Signer: "none"})
	out, code, err := s.run("sync")
	assert.Equal(t, cli.ExitMissing, code, "the test's server has no lists for VLEKs: %v", err)
	assert.Contains(t, out, "1 as the nodes' hosts gave them")
	assert.Contains(t, out, "note: n2: its CHIP_ID is masked")
	assert.Contains(t, out, "note: n3: signs with a VLEK")
	assert.Contains(t, out, "note: n4?[2J: its evidence does not name its product\n")
	assert.NotContains(t, s.kds.Log(), "blSPL")
}

func TestCertsShow(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	out, code, err := s.run("show")
	require.Zero(t, code, "%v", err)
	assert.Equal(t, "store "+s.dir+": 0 files\n", out)

	require.NoError(t, os.MkdirAll(s.dir, 0o755))
	crl, err := s.lab.CRL(time.Now().Add(-time.Hour), time.Now().AddDate(0, 0, 7), false)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "milan-vcek.crl"), crl, 0o644))
	out, code, _ = s.run("show")
	assert.Zero(t, code, "what ends soon is a warning")
	assert.Contains(t, out, "warning: milan-vcek.crl ends on ")

	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "genoa-vcek.crl"), []byte("<html>"), 0o644))
	out, code, err = s.run("show", "--json")
	assert.Equal(t, cli.ExitInvalid, code)
	require.ErrorContains(t, err, "genoa-vcek.crl")
	var j struct {
		Files []struct {
			Path, Kind, Problem string
			Good, Simulated     bool
			Until               *time.Time
		}
		Missing  []string
		Warnings []certs.Warning
	}
	require.NoError(t, json.Unmarshal([]byte(out), &j))
	require.Len(t, j.Files, 2)
	assert.Equal(t, "crl", j.Files[0].Kind)
	assert.False(t, j.Files[0].Good)
	assert.True(t, j.Files[1].Good)
	assert.Len(t, j.Warnings, 2)
	assert.Empty(t, j.Missing)

	require.NoError(t, os.Remove(filepath.Join(s.dir, "genoa-vcek.crl")))
	s.away = enclave.Refuse("E134", enclave.FaultRequest, "only admins")
	out, code, _ = s.run("show")
	assert.Equal(t, cli.ExitDenied, code)
	assert.Contains(t, out, "which chips the site has is not known: ")
	assert.Contains(t, out, "milan-vcek.crl", "what can be shown is shown")
}

func TestCertsShowRoots(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.host.Settings = nil // no configuration is read
	out, code, _ := s.run("show", "--roots")
	assert.Zero(t, code)
	assert.Contains(t, out, "ARK-Turin       root          2048-05-15   1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a\n")
	out, code, _ = s.run("show", "--roots", "--json")
	assert.Zero(t, code)
	var j struct{ Roots []enclave.Anchor }
	require.NoError(t, json.Unmarshal([]byte(out), &j))
	assert.Len(t, j.Roots, 9)
}

func TestCertsWithoutASite(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.kds.Add("Milan", s.chip("n7"))
	s.host.Settings, s.host.Chips = nil, nil // neither is asked
	dir := filepath.Join(t.TempDir(), "stick")
	_, code, err := s.run("sync", "--store", dir, "--kds", s.kds.URL, "--report", s.report("n7", 3))
	require.Zero(t, code, "%v", err)
	assert.FileExists(t, filepath.Join(dir, "milan", s.chip("n7").ID.String(), "4-0-24-219.der"))
	out, code, err := s.run("show", "--store", dir)
	require.Zero(t, code, "%v", err)
	assert.Contains(t, out, "store "+dir+": 3 files\n")
	_, code, _ = s.run("sync", "--store", dir, "--product", "genoa")
	assert.Equal(t, cli.ExitUnknown, code, "no server is named")
}
