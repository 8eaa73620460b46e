package scale

import (
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
	"github.com/slurm-enclave/slurm-enclave/internal/certs"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/enclaved"
	"github.com/slurm-enclave/slurm-enclave/internal/host/file"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/client"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/pki"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/verifiertest"
)

const cluster = "scale"

// site is an enclaved's files: everything but the chips is made anew for each run.
type site struct {
	Options
	dir     string // of this run
	chips   *attesttest.Hierarchy
	address string
	key     ed25519.PrivateKey
	pin     enclave.Digest
	trust   file.Trust
}

func newSite(o Options) (*site, error) {
	chips, err := attesttest.NewHierarchy(filepath.Join(o.Directory, "chips"))
	if err != nil {
		return nil, err
	}
	s := &site{Options: o, chips: chips, dir: filepath.Join(o.Directory, "run")}
	s.trust = trust(s.dir)
	if err = s.write(); err != nil {
		return nil, fmt.Errorf("prepare enclaved: %w", err)
	}
	return s, nil
}

// trust lets this user own the files of enclaved: nothing is protected here.
func trust(dir string) file.Trust { return file.Trust{Owner: uint32(os.Geteuid()), Top: dir} }

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) remove() error { return os.RemoveAll(s.dir) }

func (s *site) write() error {
	if err := s.remove(); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed at once: it finds a port that is free
	if err != nil {
		return err
	}
	s.address = l.Addr().String()
	if err = l.Close(); err != nil {
		return err
	}
	files := map[string]string{
		"roots/lab.pem": string(s.chips.Roots()), "policy.d/default.yaml": policy(), "inventory.yaml": inventory(s.Nodes),
		"tenants.yaml": "tenants: [{name: onc, accounts: [onc], subtree: proj/onc, policy: default}]\n",
		"enclave.yaml": s.yaml("sha256:" + strings.Repeat("0", 64)),
	}
	if err = os.MkdirAll(s.path("state"), 0o700); err != nil {
		return err
	}
	for name, text := range files {
		if err = os.MkdirAll(filepath.Dir(s.path(name)), 0o755); err != nil {
			return err
		}
		if err = os.WriteFile(s.path(name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	line, err := enclaved.KeyLine(s.path("enclave.yaml"), s.trust)
	if err != nil {
		return err
	}
	key := strings.TrimPrefix(line, "key: ")
	if err = s.pin.UnmarshalText([]byte(strings.TrimPrefix(key, "sha256:"))); err != nil {
		return err
	}
	if s.key, err = pki.LoadKey(s.path("state/verifier.key")); err != nil {
		return err
	}
	return os.WriteFile(s.path("enclave.yaml"), []byte(s.yaml(key)), 0o644)
}

// barrier is as long as a site may make it, or, where a node is lost, as short as can be.
func (s *site) barrier() int {
	if s.Lost {
		return min(5+s.Nodes/150, 85)
	}
	return 85
}

func (s *site) yaml(key string) string {
	return fmt.Sprintf(`cluster: %s
verifier: {address: "%s", key: "%s"}
slurm: {slurmctld: {addresses: [10.0.0.254]}}
storage: {source: /srv/fs}
limits: {barrier_seconds: %d}
controller: {listen: "%s", socket: %s, state: %s, slurm_user: root, allow_simulated: true, simulated_roots: %s, certificates: %s, policies: %s, tenants: %s, inventory: %s}
`, cluster, s.address, key, s.barrier(), s.address, s.path("s"), s.path("state"), s.path("roots"), s.path("certs"),
		s.path("policy.d"), s.path("tenants.yaml"), s.path("inventory.yaml"))
}

func policy() string {
	t := attesttest.CurrentTCB()
	return fmt.Sprintf("name: default\nreference_values: [{name: lab, measurement: %s, covers: [firmware, kernel, rootfs]}]\n"+
		"minimum_tcb: {milan: {bl: %d, tee: %d, snp: %d, ucode: %d}}\nallow_simulated: true\n",
		attesttest.LabMeasurement(), t.Bootloader, t.TEE, t.SNP, t.Microcode)
}

func name(i int) string { return fmt.Sprintf("n%05d", i+1) }

// tunnelAddress is a node's on the job's network, sourceAddress the one that its calls come from.
func tunnelAddress(i int) netip.Addr { return address(10, i) }
func sourceAddress(i int) netip.Addr { return address(127, i) }

func address(first byte, i int) netip.Addr {
	return netip.AddrFrom4([4]byte{first, 1, byte((i + 256) >> 8), byte(i)})
}

func inventory(nodes int) string {
	var b strings.Builder
	b.WriteString("nodes:\n")
	for i := range nodes {
		fmt.Fprintf(&b, "  - {name: %s, addresses: [%s], tunnel: %s}\n", name(i), tunnelAddress(i), tunnelAddress(i))
	}
	return b.String()
}

// populate makes the nodes, and enrols them in the ledger as an admin would have done long ago.
func (s *site) populate(ctx context.Context) (list []*node, err error) {
	authority, err := pki.New(s.key)
	if err != nil {
		return nil, err
	}
	l, err := ledger.Open(ctx, s.path("state/ledger.db"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	list = make([]*node, s.Nodes)
	return list, forEach(s.Nodes, enrolAtOnce, func(i int) error {
		n, err := s.newNode(i, authority)
		if err != nil {
			return err
		}
		list[i] = n
		return l.Enrol(ctx, ledger.Enrolment{
			Node: n.Name, Chip: n.chip.ID.String(), Fingerprint: sha256.Sum256(n.certificate.Certificate[0]),
			Certificate: n.certificate.Certificate[0], At: time.Now(),
		})
	})
}

// store puts the chip's certificate where enclave certs sync puts AMD's: enclaved has verified it
// when the job comes.
func (s *site) store(c *attesttest.Chip) error {
	if s.Cold {
		return nil
	}
	path := s.path("certs/" + certs.Key{Product: "milan", Chip: c.ID, TCB: c.TCB}.Path())
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, c.Certificate, 0o644)
}

func (s *site) newNode(i int, authority *pki.Authority) (*node, error) {
	chip, err := s.chips.Chip(name(i))
	if err != nil {
		return nil, err
	}
	peer, err := verifiertest.NewNode(name(i), tunnelAddress(i), ed25519.PublicKey(s.key[ed25519.SeedSize:]))
	if err != nil {
		return nil, err
	}
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := authority.Node(peer.Name, pub)
	if err != nil {
		return nil, err
	}
	if err = s.store(chip); err != nil {
		return nil, err
	}
	n := &node{Node: peer, chip: chip, table: chip.Table()}
	if i < s.Devices {
		tunnel, bad := ecdh.X25519().GenerateKey(rand.Reader)
		if bad != nil {
			return nil, bad
		}
		n.device, n.Keys.WireGuard = &device{private: tunnel.Bytes()}, enclave.PublicKey(tunnel.PublicKey().Bytes())
	}
	n.certificate = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	n.client = client.New(client.Options{
		Address: s.address, Pin: s.pin, Certificate: n.certificate, Dial: n.dialer(sourceAddress(i)), Patience: 10 * time.Second,
	})
	return n, nil
}
