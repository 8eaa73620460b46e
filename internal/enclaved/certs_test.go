package enclaved_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
	"github.com/slurm-enclave/slurm-enclave/internal/certs"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
)

// put stores a file as enclave certs sync does.
func (c *controller) put(name string, b []byte) {
	c.t.Helper()
	require.NoError(c.t, os.MkdirAll(c.path("certs"), 0o755))
	s, err := certs.Open(c.path("certs"))
	require.NoError(c.t, err)
	defer func() { require.NoError(c.t, s.Close()) }()
	require.NoError(c.t, s.Write(name, b))
}

// alarmed are the alarms in the ledger, latest first.
func (c *controller) alarmed() []ledger.Alarm {
	c.t.Helper()
	l, err := ledger.Open(c.t.Context(), c.path("state/ledger.db"))
	require.NoError(c.t, err)
	defer func() { require.NoError(c.t, l.Close()) }()
	list, err := l.Alarms(c.t.Context(), 10)
	require.NoError(c.t, err)
	return list
}

func TestChipsOfEnrolledNodes(t *testing.T) {
	t.Parallel()
	c := start(t)
	none, err := c.admin(0).Chips(t.Context())
	require.NoError(t, err)
	assert.Empty(t, none.Chips)
	c.enrol("n2")
	got, err := c.admin(0).Chips(t.Context())
	require.NoError(t, err)
	require.Len(t, got.Chips, 1)
	chip, err := c.chips.Chip("n2")
	require.NoError(t, err)
	x := got.Chips[0]
	assert.Equal(t, "n2", x.Node)
	assert.Equal(t, "milan", x.Product)
	assert.Equal(t, chip.ID, x.ChipID)
	assert.Equal(t, chip.TCB, x.TCB)
	assert.Equal(t, "VCEK", x.Signer)
	assert.Equal(t, chip.Certificate, x.Certificate, "the host gave it")
	assert.NotNil(t, x.Seen)
}

func TestStoredListsCountWithoutARestart(t *testing.T) {
	t.Parallel()
	c := start(t)
	now := time.Now()
	crl, err := c.chips.CRL(now.Add(-time.Hour), now.AddDate(1, 0, 0), false)
	require.NoError(t, err)
	c.put("milan-vcek.crl", crl)
	c.reload <- syscall.SIGHUP
	c.reload <- syscall.SIGHUP // taken once the one before is done: the list is in force
	c.enrol("n1")
	c.put("milan-vcek.crl", []byte("<html>429</html>"))
	alarms := func(n int) func() bool { return func() bool { return len(c.alarmed()) == n } }
	require.Eventually(t, alarms(1), 30*time.Second, 100*time.Millisecond)
	a := c.alarmed()[0]
	assert.Equal(t, enclave.Code("E528"), a.Code)
	assert.Contains(t, a.Reason, "read revocation list milan-vcek.crl: parse CRL")
	c.enrol("n2")
	old, err := c.chips.CRL(now.Add(-2*time.Hour), now.AddDate(1, 0, 0), false)
	require.NoError(t, err)
	c.put("milan-vcek.crl", old)
	require.Eventually(t, alarms(2), 30*time.Second, 100*time.Millisecond)
	assert.Contains(t, c.alarmed()[0].Reason, "the newest so far of", "the last good one outlives a broken one")
	c.write("tenants.yaml", strings.Replace(tenantTable, "accounts: [onc]", "accounts: [new]", 1))
	published := func() string {
		c.reload <- syscall.SIGHUP
		c.reload <- syscall.SIGHUP // as above
		lua, err := os.ReadFile(c.path("state/tenants.lua"))
		require.NoError(t, err)
		return string(lua)
	}
	assert.NotContains(t, published(), "new", "files that are read again don't bring the older list in")
	c.put("milan-vcek.crl", crl)
	assert.Contains(t, published(), "new")
}

func TestABrokenListAtStart(t *testing.T) {
	t.Parallel()
	foreign, err := attesttest.NewHierarchy(t.TempDir(), attesttest.SmallKeys())
	require.NoError(t, err)
	crl, err := foreign.CRL(time.Now(), time.Now().Add(time.Hour), false)
	require.NoError(t, err)
	for name, b := range map[string][]byte{"no list": []byte("x"), "a list of foreign keys": crl} {
		t.Run(name, func(t *testing.T) {
			c := files(t)
			c.put("any.crl", b)
			r, ok := enclave.AsRefusal(c.run(t.Context()))
			require.True(t, ok)
			assert.Equal(t, enclave.Code("E016"), r.Code)
			assert.Contains(t, r.Error(), "any.crl")
		})
	}
}

func TestANodeWithoutACertificateIsEnrolledOnceThereIsOne(t *testing.T) {
	t.Parallel()
	c := start(t)
	c.bare = true
	err := c.command("n1", t.TempDir())("--request")
	r, ok := enclave.AsRefusal(err)
	require.True(t, ok, "%v", err)
	assert.Contains(t, r.Reason, "there is no certificate of the VCEK")
	assert.Contains(t, r.Fix, "enclave certs sync --pending")
	got, err := c.admin(0).Chips(t.Context())
	require.NoError(t, err)
	require.Len(t, got.Chips, 1)
	x := got.Chips[0]
	assert.True(t, x.Pending)
	assert.Equal(t, attesttest.ChipID("n1"), x.ChipID)

	chip, err := c.chips.Chip("n1")
	require.NoError(t, err)
	c.put(certs.Key{Product: x.Product, Chip: x.ChipID, TCB: x.TCB}.Path(), chip.Certificate)
	c.enrol("n1")
}

func TestWhatEndsSoonIsAnAlarmAndANumber(t *testing.T) {
	t.Parallel()
	c := files(t)
	now := time.Now()
	crl, err := c.chips.CRL(now.Add(-time.Hour), now.AddDate(0, 0, 20), false)
	require.NoError(t, err)
	c.put("milan-vcek.crl", crl)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := free.Addr().String()
	require.NoError(t, free.Close())
	yaml, err := os.ReadFile(c.path("enclave.yaml"))
	require.NoError(t, err)
	c.write("enclave.yaml", strings.Replace(string(yaml), "controller:", "controller:\n  metrics: "+address, 1))
	c.begin()
	get := func(path string) (int, string) {
		r, errGet := http.Get("http://" + address + path) //nolint:noctx // asked again until it answers
		if errGet != nil {
			return 0, errGet.Error()
		}
		b, errRead := io.ReadAll(r.Body)
		require.NoError(t, errors.Join(errRead, r.Body.Close()))
		return r.StatusCode, string(b)
	}
	numbers := ""
	require.Eventually(t, func() bool {
		_, numbers = get("/metrics")
		return strings.Contains(numbers, `enclave_alarms_total{code="E529"} 1`)
	}, 20*time.Second, 50*time.Millisecond)
	assert.Contains(t, numbers, "enclave_certificate_warnings 1")
	assert.Regexp(t, `enclave_certificate_not_after_seconds\{kind="crl",path="milan-vcek.crl"\} [1-9]`, numbers)
	require.Len(t, c.alarmed(), 1)
	assert.Regexp(t, `^1 files of the certificate store need a look, first milan-vcek.crl: it ends on .*, in (19|20) days$`, c.alarmed()[0].Reason)
	status, _ := get("/")
	assert.Equal(t, http.StatusNotFound, status)
}
