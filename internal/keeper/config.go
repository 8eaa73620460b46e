// Package keeper is what enclave-keeper does: it holds what a job's enclave needs alive on a
// node while the prolog is long gone. It holds the private keys, and userspace WireGuard where
// the kernel has none; it proves the node again and again, so that GO goes on to count; it hears
// at once when a node leaves the roster, and takes that one out of the tunnel; and it sees when
// somebody changes the job's fence or mesh, and ends the job for it.
//
// One keeper serves one job on one node and is never restarted: its keys are nowhere else. It
// starts no program, opens no port, asks no wall clock, and talks to nobody but WireGuard's
// peers and the verifier. The data path needs neither the verifier nor, where the kernel has
// WireGuard, the keeper: what ends a job is that GO's time runs out.
package keeper

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/fence"
	"github.com/slurm-enclave/slurm-enclave/internal/gate"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
)

// Codes of this package's refusals.
const (
	CodeStart enclave.Code = "E240" // the keeper did not start, or did not become ready
	CodeStop  enclave.Code = "E241" // the keeper did not end
	CodeLate  enclave.Code = "E242" // the verifier did not renew the node in time
	CodeNews  enclave.Code = "E243" // a later roster could not be believed, or not be put in place
	CodeBlind enclave.Code = "E431" // fence and mesh could not be read back any more
)

// Config is what the prolog tells its keeper. It goes through a sealed memfd: the keys are
// never in a file, an argument or the environment.
type Config struct {
	Key       enclave.JobKey `json:"key"`
	Node      string         `json:"node"` // NodeName
	Device    string         `json:"device"`
	MTU       int            `json:"mtu"`
	Userspace bool           `json:"userspace"` // the kernel has no WireGuard: hold the device
	Directory string         `json:"directory"` // the job's, /run/slurm-enclave/JOB.RESTART
	Gate      gate.Directory `json:"gate"`      // where GO is
	Expires   uint64         `json:"expires"`   // the job's own end: CLOCK_BOOTTIME, whole seconds
	Verifier  string         `json:"verifier"`  // host:port
	Pin       enclave.Digest `json:"pin"`       // of the verifier's key
	Epoch     uint32         `json:"epoch"`     // of the roster
	Peers     []enclave.Peer `json:"peers"`     // the roster's leaves in their order, this node's too
	Keys      enclave.Secret `json:"-"`         // attest.Keys.Secret, 96 bytes
}

// Grant is the prolog's word that GO is stored. Without it nothing is renewed or watched.
type Grant struct {
	Go       gate.Go `json:"go"`
	Lifetime uint32  `json:"lifetime_seconds"` // of GO, from its receipt
	Renew    uint32  `json:"renew_seconds"`    // how often the node proves itself again
	Walls    Walls   `json:"walls"`
}

// Walls are what the prolog put up around the job, as it has to stay.
type Walls struct {
	Mesh   mesh.Held   `json:"mesh"`
	Fence  fence.Table `json:"fence"`
	Closed fence.Table `json:"closed"` // what is put up in the fence's place when the job is lost
}

const (
	magic   = "slurm-enclave/keeper/v2\n"
	keySize = 96

	// MaxSize bounds an encoded config: 4096 nodes with some addresses each.
	MaxSize = 8 << 20
)

// Check refuses a config that a keeper can't work from.
func (c Config) Check() error {
	switch {
	case c.Key.Job == 0:
		return errors.New("job id 0")
	case c.Device == "" || len(c.Device) > 15:
		return fmt.Errorf("device name %q", c.Device)
	case !filepath.IsAbs(c.Directory) || !filepath.IsAbs(c.Gate.Path):
		return fmt.Errorf("directory %q and gate %q must be absolute", c.Directory, c.Gate.Path)
	case filepath.Base(c.Directory) != c.Key.Directory():
		return fmt.Errorf("directory %q is not that of job %s", c.Directory, c.Key.Directory())
	case c.Expires == 0:
		return errors.New("no end of the lifetime")
	case c.Verifier == "" || c.Epoch == 0:
		return errors.New("no verifier, or no roster's epoch")
	case !slices.ContainsFunc(c.Peers, func(p enclave.Peer) bool { return p.Node == c.Node }):
		return fmt.Errorf("node %q is not on its own roster", c.Node)
	case len(c.Keys.Bytes()) != keySize:
		return fmt.Errorf("the private keys are not %d bytes", keySize)
	}
	return nil
}

// Encode writes the config with its key. The caller wipes the bytes.
func (c Config) Encode() ([]byte, error) {
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("encode keeper config: %w", err)
	}
	open, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode keeper config: %w", err)
	}
	b := append([]byte(magic), c.Keys.Bytes()...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(open)))
	return append(b, open...), nil
}

// Decode reads what Encode wrote and wipes b.
func Decode(b []byte) (Config, error) {
	defer clear(b)
	head := len(magic) + keySize + 4
	if len(b) < head || len(b) > MaxSize || string(b[:len(magic)]) != magic {
		return Config{}, errors.New("decode keeper config: not one")
	}
	if n := binary.BigEndian.Uint32(b[head-4 : head]); int(n) != len(b)-head {
		return Config{}, fmt.Errorf("decode keeper config: length %d, want %d", n, len(b)-head)
	}
	var c Config
	if err := json.Unmarshal(b[head:], &c); err != nil {
		return Config{}, fmt.Errorf("decode keeper config: %w", err)
	}
	c.Keys = enclave.NewSecret(b[len(magic) : len(magic)+keySize])
	if err := c.Check(); err != nil {
		return Config{}, fmt.Errorf("decode keeper config: %w", err)
	}
	return c, nil
}

// Processors is how many processors userspace WireGuard gets of a node's at most, when one is not
// enough for its packets: what it takes is taken from the job.
func Processors(node int) int { return min(max(1, node/4), 8) }
