package enclaved

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/slurm-enclave/slurm-enclave/internal/certs"
	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/host/file"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
	"github.com/slurm-enclave/slurm-enclave/internal/tenants"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/pki"
)

// maxFile bounds a file of the configuration.
const maxFile = 4 << 20

// Keys beneath controller.state: the verifier's, and those of receipts.
const (
	keyFile              = "verifier.key"
	receiptKeyFile       = "receipt.key"
	simulatedReceiptFile = "receipt-simulated.key"
)

// wrong is a fault of the configuration: what, and what to do.
func wrong(code enclave.Code, fix string, err error) error {
	r := enclave.Refuse(code, enclave.FaultService, "%v", err)
	r.Fix = fix
	return r
}

// files reads what only root could have written: whoever writes it decides what is affirmed.
type files struct{ trust file.Trust }

func (f files) read(path string) ([]byte, error) {
	b, err := f.trust.Read(path, maxFile)
	if err != nil {
		return nil, wrong("E001", "make it a file of root's that others can't write: chown root:root, chmod 0644", err)
	}
	return b, nil
}

func (f files) config(path string) (config.Config, error) {
	b, err := f.read(path)
	if err != nil {
		return config.Config{}, err
	}
	c, err := config.Load(bytes.NewReader(b))
	if err != nil {
		return config.Config{}, wrong("E002", "correct "+path+", see enclave.yaml(5)", err)
	}
	return c, nil
}

func (f files) inventory(path string) (config.Inventory, error) {
	b, err := f.read(path)
	if err != nil {
		return config.Inventory{}, err
	}
	i, err := config.LoadInventory(bytes.NewReader(b))
	if err != nil {
		return config.Inventory{}, wrong("E003", "correct "+path, err)
	}
	return i, nil
}

// KeyLine is the line of enclave.yaml for the verifier's key, which is made when there is none.
// Everything else in the file may still be wrong: the line is what is to be put right.
func KeyLine(path string, trust file.Trust) (string, error) {
	state := config.Default().Controller.State
	if c, err := (files{trust}).config(path); err == nil {
		state = c.Controller.State
	}
	key, err := pki.LoadOrNewKey(filepath.Join(state, keyFile))
	if err != nil {
		return "", keyFault(err)
	}
	return "key: " + pin(key.Public().(ed25519.PublicKey)), nil //nolint:forcetypeassert // an Ed25519 key's is
}

func pin(key ed25519.PublicKey) string { return "sha256:" + pki.KeyDigest(key).String() }

func keyFault(err error) error {
	return wrong("E004", "the state directory must be the enclave user's, the key of mode 0400 and the same user's", err)
}

// loadKey never makes a key: nodes pin it, and a new one in the place of a lost one would turn
// every node away without a word.
func loadKey(c config.Config) (ed25519.PrivateKey, error) {
	key, err := pki.LoadKey(filepath.Join(c.Controller.State, keyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, wrong("E004", "run enclaved key as the enclave user and put its line into enclave.yaml on all hosts", err)
	}
	if err != nil {
		return nil, keyFault(err)
	}
	want, err := c.Verifier.KeyDigest()
	if got := pki.KeyDigest(key.Public().(ed25519.PublicKey)); err == nil && got != want { //nolint:forcetypeassert // as above
		return nil, wrong("E005", "put the line that enclaved key prints into enclave.yaml on all hosts", errors.New("verifier.key in enclave.yaml is not this verifier's key"))
	}
	return key, err
}

// receiptKeys makes each at the first start. They are pinned by readers of receipts, whom a new one
// would be shown to: nothing turns away in silence.
func receiptKeys(state string) (verifier.ReceiptKeys, error) {
	var k verifier.ReceiptKeys
	var err error
	if k.Real, err = pki.LoadOrNewKey(filepath.Join(state, receiptKeyFile)); err == nil {
		k.Simulated, err = pki.LoadOrNewKey(filepath.Join(state, simulatedReceiptFile))
	}
	if err != nil {
		return k, keyFault(err)
	}
	return k, nil
}

func openLedger(ctx context.Context, state string) (*ledger.Ledger, error) {
	path := filepath.Join(state, "ledger.db")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) // SQLite gives its other files this mode, too
	if err == nil {
		err = f.Close()
	}
	if err == nil {
		var l *ledger.Ledger
		if l, err = ledger.Open(ctx, path); err == nil {
			return l, nil
		}
	}
	return nil, wrong("E006", "check space, owner and permissions of "+state, err)
}

// books are the files that may be read again while enclaved runs. A set is taken whole or not at all.
type books struct {
	files files
	now   atomic.Pointer[set]
	nodes int // enrolled, as the table for slurmctld says; below 0 is not known
}

type set struct {
	tenants   *tenants.Table
	appraisal *verifier.Appraisal
}

func (f files) books(c config.Config) (*books, error) {
	b := &books{files: f, nodes: -1}
	return b, b.load(c)
}

func (b *books) load(c config.Config) error {
	text, err := b.files.read(c.Controller.Tenants)
	if err != nil {
		return err
	}
	table, err := tenants.Load(bytes.NewReader(text))
	if err != nil {
		return wrong("E007", "correct "+c.Controller.Tenants, err)
	}
	if err = table.SamePartitions(c.Partitions); err != nil {
		return wrong("E047", "write the same partitions into both files", fmt.Errorf("%s: %w", c.Controller.Tenants, err))
	}
	for _, dir := range []string{c.Controller.Policies, c.Controller.SimulatedRoots} {
		if dir == "" {
			continue
		}
		if err = b.files.trust.Secure(dir); err != nil {
			return wrong("E001", "make it a directory of root's that others can't write", err)
		}
	}
	appraisal, err := verifier.LoadAppraisal(c.Controller)
	if err != nil {
		return wrong("E008", "correct the file in "+c.Controller.Policies, err)
	}
	if old := b.now.Load(); old != nil {
		appraisal.Follow(old.appraisal)
	}
	if err := appraisal.Refresh(); err != nil {
		return wrong("E016", "remove the file, or fetch it again with enclave certs sync", err)
	}
	for _, t := range table.Tenants {
		if _, err := appraisal.Policy(t.Policy); err != nil {
			return wrong("E008", "add the file to "+c.Controller.Policies, fmt.Errorf("tenant %s: %w", t.Name, err))
		}
	}
	if err := b.publish(c, table); err != nil {
		return wrong("E009", "check space and permissions of "+c.Controller.State, err)
	}
	b.now.Store(&set{table, appraisal})
	return nil
}

// publish writes the table for slurmctld.
func (b *books) publish(c config.Config, table *tenants.Table) error {
	return writeLua(filepath.Join(c.Controller.State, "tenants.lua"), table.RenderLua(c.Network.Interactive == "allow", b.nodes))
}

// count tells slurmctld how many nodes are enrolled, when that has changed.
func (b *books) count(c config.Config, nodes int) error {
	if nodes == b.nodes {
		return nil
	}
	b.nodes = nodes
	return b.publish(c, b.now.Load().tenants)
}

// refresh reads what was stored among the certificates since.
func (b *books) refresh() error { return b.now.Load().appraisal.Refresh() }

// learn verifies ahead what is stored and what the enrolled nodes' hosts gave.
func (b *books) learn(chips []api.Chip) {
	var seen [][]byte
	for _, c := range chips {
		if c.Certificate != nil {
			seen = append(seen, c.Certificate)
		}
	}
	b.now.Load().appraisal.Learn(seen)
}

// survey weighs every file of the certificate store.
func (b *books) survey() ([]certs.Holding, error) { return b.now.Load().appraisal.Survey() }

// writeLua replaces the table that job_submit reads: slurmctld sees the old one or the new one.
func writeLua(path string, text []byte) error {
	half := path + "+"
	if err := os.Remove(half); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := pki.WriteNew(half, text, 0o644); err != nil {
		return err
	}
	return os.Rename(half, path)
}

// Lookup is verifier.Tenants.
func (b *books) Lookup(account, wanted string) (enclave.Tenant, error) {
	return b.now.Load().tenants.Lookup(account, wanted)
}

// Policy is verifier.Appraiser's.
func (b *books) Policy(name string) (enclave.Digest, error) {
	return b.now.Load().appraisal.Policy(name)
}

// Text is verifier.Appraiser's.
func (b *books) Text(d enclave.Digest) (string, error) {
	return b.now.Load().appraisal.Text(d)
}

// Appraise is verifier.Appraiser's.
func (b *books) Appraise(r verifier.Rules, e enclave.Evidence, c claim.Claim, m verifier.Machine) enclave.AttestationResult {
	return b.now.Load().appraisal.Appraise(r, e, c, m)
}

// Identify is verifier.Appraiser's.
func (b *books) Identify(e enclave.Evidence, c claim.Claim) enclave.AttestationResult {
	return b.now.Load().appraisal.Identify(e, c)
}
