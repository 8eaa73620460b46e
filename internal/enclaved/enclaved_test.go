package enclaved_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/cli"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/enclaved"
	"github.com/slurm-enclave/slurm-enclave/internal/host/file"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/client"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/verifiertest"
)

// controller is enclaved with its files, and a lab's chips.
type controller struct {
	t      *testing.T
	dir    string
	port   int
	pin    enclave.Digest
	chips  *attesttest.Hierarchy
	bare   bool // hosts hand out no certificates
	reload chan os.Signal
	log    *bytes.Buffer
	end    func() error
	spoil  func(*enclave.Evidence) // what n2 sends, nil: nothing is spoilt
}

func (c *controller) trust() file.Trust { return file.Trust{Owner: uint32(os.Geteuid()), Top: c.dir} }

func (c *controller) path(name string) string { return filepath.Join(c.dir, name) }

func (c *controller) write(name, text string) {
	c.t.Helper()
	require.NoError(c.t, os.MkdirAll(filepath.Dir(c.path(name)), 0o755))
	require.NoError(c.t, os.WriteFile(c.path(name), []byte(text), 0o644))
}

func (c *controller) yaml(key string) string {
	return fmt.Sprintf(`cluster: c1
verifier: {address: "127.0.0.1:%d", key: "%s"}
slurm: {slurmctld: {addresses: [10.0.0.254]}}
storage: {source: /srv/fs}
controller:
  listen: "127.0.0.1:%d"
  socket: %s
  state: %s
  slurm_user: root
  allow_simulated: true
  simulated_roots: %s
  certificates: %s
  policies: %s
  tenants: %s
  inventory: %s
`, c.port, key, c.port, c.path("s"), c.path("state"), c.path("roots"), c.path("certs"), c.path("policy.d"), c.path("tenants.yaml"), c.path("inventory.yaml"))
}

func policy() string {
	t := attesttest.CurrentTCB()
	return fmt.Sprintf("name: default\nreference_values: [{name: lab, measurement: %s, covers: [firmware, kernel, rootfs]}]\n"+
		"minimum_tcb: {milan: {bl: %d, tee: %d, snp: %d, ucode: %d}}\nallow_simulated: true\n",
		attesttest.LabMeasurement(), t.Bootloader, t.TEE, t.SNP, t.Microcode)
}

const tenantTable = "tenants: [{name: onc, accounts: [onc], subtree: proj/onc, policy: default}]\n"

func files(t *testing.T) *controller {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := &controller{t: t, dir: t.TempDir(), port: l.Addr().(*net.TCPAddr).Port, reload: make(chan os.Signal), log: &bytes.Buffer{}}
	require.NoError(t, l.Close())
	c.chips, err = attesttest.NewHierarchy(t.TempDir(), attesttest.SmallKeys())
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(c.path("state"), 0o700))
	c.write("roots/lab.pem", string(c.chips.Roots()))
	c.write("policy.d/default.yaml", policy())
	c.write("tenants.yaml", tenantTable)
	c.write("inventory.yaml", "nodes: [{name: n1, addresses: [10.0.0.1], tunnel: 10.0.0.1}, {name: n2, addresses: [10.0.0.2], tunnel: 10.0.0.2}]\n")
	c.write("enclave.yaml", c.yaml("sha256:"+strings.Repeat("0", 64)))
	line, err := enclaved.KeyLine(c.path("enclave.yaml"), c.trust())
	require.NoError(t, err)
	key := strings.TrimPrefix(line, "key: ")
	require.NoError(t, c.pin.UnmarshalText([]byte(strings.TrimPrefix(key, "sha256:"))))
	c.write("enclave.yaml", c.yaml(key))
	return c
}

func (c *controller) run(ctx context.Context) error {
	log := logrus.New()
	log.SetOutput(c.log)
	return enclaved.Run(ctx, log, enclaved.Options{Config: c.path("enclave.yaml"), Reload: c.reload, Trust: c.trust()})
}

func start(t *testing.T) *controller {
	t.Helper()
	c := files(t)
	c.begin()
	return c
}

// begin runs it until the test's end.
func (c *controller) begin() {
	t := c.t
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- c.run(ctx) }()
	var once sync.Once
	var ended error
	c.end = func() error {
		once.Do(func() { cancel(); ended = <-done })
		return ended
	}
	t.Cleanup(func() { assert.NoError(t, c.end()) })
	// The first call waits until enclaved listens.
	_, err := c.admin(20 * time.Second).PendingEnrols(t.Context())
	require.NoError(t, err)
}

func (c *controller) admin(patience time.Duration) *client.Client {
	k := client.New(client.Options{Socket: c.path("s"), Patience: patience})
	c.t.Cleanup(k.Close)
	return k
}

// attester is a chip of the lab that signs what it is asked.
func (c *controller) attester(node string) func(context.Context, [64]byte) (enclave.Evidence, error) {
	return func(_ context.Context, data [64]byte) (enclave.Evidence, error) {
		chip, err := c.chips.Chip(node)
		if err != nil {
			return enclave.Evidence{}, err
		}
		b, err := chip.Signed(chip.Report(data))
		e := enclave.Evidence{Report: b, Certificates: chip.Table(), Provider: "sev_guest"}
		if c.bare {
			e.Certificates = nil
		}
		return e, err
	}
}

// command is `enclave node enrol` on the node or on the controller.
func (c *controller) command(node, dir string) func(args ...string) error {
	m := cli.Machine{
		Name: func(string) (string, error) { return node, nil }, Attest: c.attester(node),
		Enroller: func(string) (cli.Enroller, enclave.Digest, error) {
			return client.New(client.Options{Address: fmt.Sprintf("127.0.0.1:%d", c.port), Pin: c.pin}), c.pin, nil
		},
		Registrar: func(string) (cli.Registrar, error) { return c.admin(0), nil },
		Store:     func(t tls.Certificate) error { return client.StoreNode(dir, t) },
	}
	return func(args ...string) error {
		root := cli.NewRootCommand(io.Discard, io.Discard, "test", nil, cli.NewNodeCommand(m))
		root.SetArgs(append([]string{"node", "enrol"}, args...))
		return root.ExecuteContext(c.t.Context())
	}
}

// enrol goes the way of the two commands.
func (c *controller) enrol(node string) *client.Client {
	c.t.Helper()
	dir := c.t.TempDir()
	command := c.command(node, dir)
	asked := make(chan error, 1)
	go func() { asked <- command("--request") }()
	require.Eventually(c.t, func() bool {
		return command(node, "--chip", attesttest.ChipID(node).String()) == nil
	}, 20*time.Second, 50*time.Millisecond)
	require.NoError(c.t, <-asked)
	certificate, err := client.LoadNode(dir)
	require.NoError(c.t, err)
	k := client.New(client.Options{Address: fmt.Sprintf("127.0.0.1:%d", c.port), Pin: c.pin, Certificate: certificate})
	c.t.Cleanup(k.Close)
	return k
}

// bringUp is a node's way through both barriers with signed evidence.
func (c *controller) bringUp(k *client.Client, key enclave.JobKey, node string, address netip.Addr) error {
	ctx := c.t.Context()
	nonce, err := k.Nonce(ctx, api.NonceRequest{Job: key, Node: node, Purpose: claim.PurposeJob})
	if err != nil {
		return err
	}
	n, err := verifiertest.NewNode(node, address, k.Key())
	if err != nil {
		return err
	}
	a, err := n.Announce(key, claim.PurposeJob, nonce)
	if err != nil {
		return err
	}
	data, err := api.JobClaim(key, nonce.HetOffset, sha256.Sum256(k.Key()), nonce.Policy, &a).ReportData()
	if err != nil {
		return err
	}
	if a.Evidence, err = c.attester(node)(ctx, data); err != nil {
		return err
	}
	if node == "n2" && c.spoil != nil {
		c.spoil(&a.Evidence)
	}
	if err = n.Resign(&a); err != nil {
		return err
	}
	answer, err := k.Evidence(ctx, a)
	if err != nil {
		return err
	}
	if _, _, err = answer.Accept(n.Expect(key, nonce.Nonce)); err != nil {
		return err
	}
	_, err = k.Ready(ctx, api.ReadyRequest{NodeRequest: api.NodeRequest{Job: key, Node: node, Epoch: nonce.Epoch}})
	return err
}

func TestAJobWithSignedEvidence(t *testing.T) {
	t.Parallel()
	c := start(t)
	n1, n2 := c.enrol("n1"), c.enrol("n2")
	j := enclave.Job{JobKey: enclave.JobKey{Cluster: "c1", Job: 7}, UID: 2001, User: "alice", Account: "onc", Partition: "cpu-sev", Nodes: []string{"n1", "n2"}, Batch: true}
	_, err := c.admin(0).Register(t.Context(), api.RegisterRequest{Job: j})
	require.NoError(t, err)
	errs := make(chan error, 2)
	go func() { errs <- c.bringUp(n1, j.JobKey, "n1", netip.MustParseAddr("10.0.0.1")) }()
	go func() { errs <- c.bringUp(n2, j.JobKey, "n2", netip.MustParseAddr("10.0.0.2")) }()
	require.NoError(t, <-errs)
	require.NoError(t, <-errs)
	s, err := c.admin(0).Settled(t.Context(), j.JobKey)
	require.NoError(t, err)
	assert.True(t, s.Go)
	assert.Equal(t, enclave.VerdictSimulated, s.Verdict, "a lab's keys never make a job protected")
	assert.FileExists(t, c.path("state/go/7.0"))
	require.NoError(t, c.end())
	assert.Contains(t, c.log.String(), "stopped")
}

func TestStateIsNobodysBusiness(t *testing.T) {
	t.Parallel()
	c := start(t)
	for name, mode := range map[string]os.FileMode{"state/verifier.key": 0o400, "state/ledger.db": 0o600, "state/tenants.lua": 0o644} {
		info, err := os.Stat(c.path(name))
		require.NoError(t, err)
		assert.Equal(t, mode, info.Mode().Perm(), name)
	}
	info, err := os.Stat(c.path("state/ledger.db-wal"))
	require.NoError(t, err)
	assert.Zero(t, info.Mode().Perm()&0o077, "the write-ahead log holds what the ledger holds")
}

func TestTenantsAreReadAgain(t *testing.T) {
	t.Parallel()
	c := start(t)
	j := enclave.Job{JobKey: enclave.JobKey{Cluster: "c1", Job: 7}, UID: 2001, Account: "new", Partition: "cpu-sev", Nodes: []string{"n1"}, Batch: true}
	_, err := c.admin(0).Register(t.Context(), api.RegisterRequest{Job: j})
	require.Error(t, err)
	c.write("tenants.yaml", "tenants: [broken\n")
	c.reload <- syscall.SIGHUP
	c.reload <- syscall.SIGHUP // taken once the one before is done
	c.write("tenants.yaml", strings.Replace(tenantTable, "accounts: [onc]", "accounts: [new]", 1))
	c.reload <- syscall.SIGHUP
	c.reload <- syscall.SIGHUP
	_, err = c.admin(0).Register(t.Context(), api.RegisterRequest{Job: j})
	require.Error(t, err, "a start that was refused stays so")
	j.Restart = 1
	_, err = c.admin(0).Register(t.Context(), api.RegisterRequest{Job: j})
	require.NoError(t, err)
	lua, err := os.ReadFile(c.path("state/tenants.lua"))
	require.NoError(t, err)
	assert.Contains(t, string(lua), "new")
	require.NoError(t, c.end())
	assert.Contains(t, c.log.String(), "the old ones stay in force")
}

func TestItDoesNotStartHalfConfigured(t *testing.T) {
	t.Parallel()
	_, foreign, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	for name, f := range map[string]struct {
		want  string
		spoil func(c *controller)
	}{
		"no enclave.yaml":                   {"E001", func(c *controller) { require.NoError(t, os.Remove(c.path("enclave.yaml"))) }},
		"an enclave.yaml that others write": {"E001", func(c *controller) { require.NoError(t, os.Chmod(c.path("enclave.yaml"), 0o666)) }},
		"a misspelled key":                  {"E002", func(c *controller) { c.write("enclave.yaml", "clutser: x\n") }},
		"an inventory that is empty":        {"E003", func(c *controller) { c.write("inventory.yaml", "nodes: []\n") }},
		"no key":                            {"E004", func(c *controller) { require.NoError(t, os.Remove(c.path("state/verifier.key"))) }},
		"a key that others read":            {"E004", func(c *controller) { require.NoError(t, os.Chmod(c.path("state/verifier.key"), 0o444)) }},
		"a pin of another key": {"E005", func(c *controller) {
			c.write("enclave.yaml", c.yaml(fmt.Sprintf("sha256:%x", sha256.Sum256(foreign.Public().(ed25519.PublicKey)))))
		}},
		"a ledger that is none":       {"E006", func(c *controller) { c.write("state/ledger.db", strings.Repeat("garbage ", 1000)) }},
		"tenants that don't parse":    {"E007", func(c *controller) { c.write("tenants.yaml", "tenant: []\n") }},
		"tenants that others write":   {"E001", func(c *controller) { require.NoError(t, os.Chmod(c.path("tenants.yaml"), 0o622)) }},
		"no policy":                   {"E008", func(c *controller) { require.NoError(t, os.Remove(c.path("policy.d/default.yaml"))) }},
		"a policy without references": {"E008", func(c *controller) { c.write("policy.d/default.yaml", "name: default\n") }},
		"a policy of another name":    {"E008", func(c *controller) { c.write("policy.d/other.yaml", policy()) }},
		"policies that others write":  {"E001", func(c *controller) { require.NoError(t, os.Chmod(c.path("policy.d"), 0o777)) }},
		"a tenant whose policy is absent": {"E008", func(c *controller) {
			c.write("tenants.yaml", strings.Replace(tenantTable, "policy: default", "policy: strict", 1))
		}},
		"roots that are none": {"E008", func(c *controller) { c.write("roots/lab.pem", "x") }},
		"a SlurmUser that is nobody": {"E012", func(c *controller) {
			text, err := os.ReadFile(c.path("enclave.yaml"))
			require.NoError(t, err)
			c.write("enclave.yaml", strings.Replace(string(text), "slurm_user: root", "slurm_user: no-such-user", 1))
		}},
		"an address that is taken": {"E013", func(c *controller) {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", c.port))
			require.NoError(t, err)
			t.Cleanup(func() { _ = l.Close() })
		}},
		"a socket that another answers": {"E014", func(c *controller) {
			l, err := net.Listen("unix", c.path("s"))
			require.NoError(t, err)
			t.Cleanup(func() { _ = l.Close() })
		}},
	} {
		t.Run(name+" is told", func(t *testing.T) {
			t.Parallel()
			c := files(t)
			f.spoil(c)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			err := c.run(ctx)
			r, ok := enclave.AsRefusal(err)
			require.True(t, ok, "%v", err)
			assert.Equal(t, f.want, string(r.Code), r.Error())
			assert.NotEmpty(t, r.Fix)
		})
	}
}
