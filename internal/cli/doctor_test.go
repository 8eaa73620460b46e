package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/cli"
	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/doctor"
	"github.com/slurm-enclave/slurm-enclave/internal/doctor/doctortest"
)

// practice is a controller's folder to be examined.
type practice struct {
	*store

	folder string
	src    *source
	marked bool
	err    error // of reading enclave.yaml
}

func newPractice(t *testing.T) *practice {
	t.Helper()
	p := &practice{store: newStore(t), folder: t.TempDir(), src: &source{}}
	p.write("policy.d/default.yaml", goodPolicy)
	p.write("tenants.yaml", "tenants:\n  - {name: a, accounts: [a], subtree: t/a, policy: default}\n")
	p.write("inventory.yaml", "nodes:\n  - {name: n1, addresses: [10.0.0.1], tunnel: 10.0.0.1}\n  - {name: n2, addresses: [10.0.0.2], tunnel: 10.0.0.2}\n  - {name: n3, addresses: [10.0.0.3], tunnel: 10.0.0.3}\n")
	p.host.Settings = func(string) (config.Controller, error) {
		c := config.Default().Controller
		c.Certificates, c.Policies, c.Tenants, c.Inventory = p.dir, p.path("policy.d"), p.path("tenants.yaml"), p.path("inventory.yaml")
		return c, nil
	}
	return p
}

// ground is a site that keeps all rules: how they break is tested in internal/doctor.
func (p *practice) ground(context.Context, string, string) (doctor.Site, bool, error) {
	p.t.Helper()
	f, err := doctortest.Host()
	require.NoError(p.t, err)
	site, err := doctortest.Site(f)
	require.NoError(p.t, err)
	site.Config.Controller, err = p.host.Settings("")
	require.NoError(p.t, err)
	return site, p.marked, p.err
}

func (p *practice) path(name string) string { return filepath.Join(p.folder, name) }

func (p *practice) write(name, text string) {
	p.t.Helper()
	require.NoError(p.t, os.MkdirAll(filepath.Dir(p.path(name)), 0o755))
	require.NoError(p.t, os.WriteFile(p.path(name), []byte(text), 0o644))
}

func (p *practice) list(until time.Time) {
	p.t.Helper()
	require.NoError(p.t, os.MkdirAll(p.dir, 0o755))
	crl, err := p.lab.CRL(time.Now().Add(-time.Hour), until, false)
	require.NoError(p.t, err)
	require.NoError(p.t, os.WriteFile(filepath.Join(p.dir, "milan-vcek.crl"), crl, 0o644))
}

func (p *practice) doctor(args ...string) (string, int) {
	p.t.Helper()
	var out bytes.Buffer
	open := func(context.Context, string) (cli.Source, error) { return p.src, nil }
	root := cli.NewRootCommand(&out, &out, "test", open, cli.NewDoctorCommand(open, p.host, p.ground))
	root.SetArgs(append([]string{"doctor"}, args...))
	err := root.ExecuteContext(p.t.Context())
	if exit, ok := errors.AsType[*cli.ExitError](err); ok {
		return out.String(), exit.Code
	}
	require.NoError(p.t, err)
	return out.String(), 0
}

func TestDoctorFindsFaults(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		spoil func(p *practice)
		want  string
	}{
		"a configuration that can't be read": {func(p *practice) {
			p.err = errors.New("line 3: unknown key")
		}, "FAIL E002"},
		"a slurm.conf that is not there": {func(p *practice) {
			p.err = fmt.Errorf("%w: open /x: no such file", cli.ErrSlurmConf)
		}, "FAIL       slurm.conf: read slurm.conf: open /x"},
		"partitions that enclave.yaml does not know": {func(p *practice) {
			p.write("tenants.yaml", "partitions: [cpu-sev, secret]\ntenants:\n  - {name: a, accounts: [a], subtree: t/a, policy: default}\n")
		}, "FAIL E047"},
		"tenants that don't parse":   {func(p *practice) { p.write("tenants.yaml", "tenant: []\n") }, "FAIL E007"},
		"an inventory that is empty": {func(p *practice) { p.write("inventory.yaml", "nodes: []\n") }, "FAIL E003"},
		"a node that is in no inventory": {func(p *practice) {
			p.write("inventory.yaml", "nodes:\n  - {name: n1, addresses: [10.0.0.1], tunnel: 10.0.0.1}\n")
		}, "FAIL E039"},
		"no inventory":                {func(p *practice) { require.NoError(p.t, os.Remove(p.path("inventory.yaml"))) }, "FAIL E003"},
		"a policy that is absent":     {func(p *practice) { require.NoError(p.t, os.Remove(p.path("policy.d/default.yaml"))) }, "FAIL E008"},
		"a policy that can't be used": {func(p *practice) { p.write("policy.d/other.yaml", "name: other\n") }, "FAIL E008"},
		"an enclaved that is away":    {func(p *practice) { p.src.err = errors.New("connection refused") }, "FAIL       enclaved"},
		"a store that is not a folder": {func(p *practice) {
			require.NoError(p.t, os.RemoveAll(p.dir))
			require.NoError(p.t, os.WriteFile(p.dir, nil, 0o644))
		}, "FAIL E529"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPractice(t)
			p.list(time.Now().AddDate(1, 0, 0))
			out, code := p.doctor()
			require.Zero(t, code, out)
			tt.spoil(p)
			out, code = p.doctor()
			assert.Equal(t, cli.ExitFailure, code, out)
			assert.Contains(t, out, tt.want)
		})
	}
}

func TestDoctorOnANodeAsksForNothingOfTheController(t *testing.T) {
	t.Parallel()
	p := newPractice(t)
	p.marked = true
	require.NoError(t, os.RemoveAll(p.folder))
	p.src.err = errors.New("connection refused")
	out, code := p.doctor()
	assert.Zero(t, code, out)
	assert.Contains(t, out, "plugstack.conf: ")
	assert.NotContains(t, out, "tenants")
}

const goodPolicy = `name: default
reference_values:
  - {name: image 7, measurement: abababababababababababababababababababababababababababababababababababababababababababababababab, covers: [firmware, kernel, rootfs]}
minimum_tcb:
  milan: {bl: 4, tee: 0, snp: 24, ucode: 219}
`

func TestDoctorWarnsThirtyDaysAhead(t *testing.T) {
	t.Parallel()
	p := newPractice(t)
	out, code := p.doctor()
	assert.Zero(t, code)
	assert.Contains(t, out, "WARN       "+p.dir+": is not there")
	p.list(time.Now().AddDate(0, 0, 31))
	out, _ = p.doctor()
	assert.Contains(t, out, "PASS       "+p.dir+": 1 files, none ends within 30 days")
	p.list(time.Now().AddDate(0, 0, 29))
	out, code = p.doctor()
	assert.Zero(t, code, "a warning is no fault")
	assert.Contains(t, out, "WARN E529  "+filepath.Join(p.dir, "milan-vcek.crl")+": ends on ")
	out, _ = p.doctor("--json")
	var found []doctor.Symptom
	require.NoError(t, json.Unmarshal([]byte(out), &found))
	assert.True(t, strings.HasSuffix(found[0].Name, "enclave.yaml"))
}
