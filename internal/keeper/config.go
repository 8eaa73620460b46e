// Package keeper is what enclave-keeper does: it holds what a job's enclave needs alive on a
// node while the prolog is long gone: the private key, userspace WireGuard where the kernel has
// none, and the end of the enclave's lifetime.
//
// One keeper serves one job on one node and is never restarted: its keys are nowhere else. It
// starts no program, opens no port and talks to nobody but WireGuard's peers.
package keeper

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Codes of this package's refusals.
const (
	CodeStart enclave.Code = "E240" // the keeper did not start, or did not become ready
	CodeStop  enclave.Code = "E241" // the keeper did not end
)

// Config is what the prolog tells its keeper. It goes through a sealed memfd: the key is never
// in a file, an argument or the environment.
type Config struct {
	Key        enclave.JobKey `json:"key"`
	Device     string         `json:"device"`
	MTU        int            `json:"mtu"`
	Userspace  bool           `json:"userspace"` // the kernel has no WireGuard: hold the device
	Directory  string         `json:"directory"` // the job's, /run/slurm-enclave/JOB.RESTART
	GoFile     string         `json:"go_file"`   // the gate's
	Expires    uint64         `json:"expires"`   // CLOCK_BOOTTIME, whole seconds
	PrivateKey enclave.Secret `json:"-"`         // WireGuard's, 32 bytes
}

const (
	magic   = "slurm-enclave/keeper/v1\n"
	keySize = 32
	maxSize = 64 << 10
)

// Check refuses a config that a keeper can't work from.
func (c Config) Check() error {
	switch {
	case c.Key.Job == 0:
		return errors.New("job id 0")
	case c.Device == "" || len(c.Device) > 15:
		return fmt.Errorf("device name %q", c.Device)
	case !filepath.IsAbs(c.Directory) || !filepath.IsAbs(c.GoFile):
		return fmt.Errorf("directory %q and go file %q must be absolute", c.Directory, c.GoFile)
	case filepath.Base(c.Directory) != c.Key.Directory():
		return fmt.Errorf("directory %q is not that of job %s", c.Directory, c.Key.Directory())
	case c.Expires == 0:
		return errors.New("no end of the lifetime")
	case len(c.PrivateKey.Bytes()) != keySize:
		return errors.New("private key is not 32 bytes")
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
	b := append([]byte(magic), c.PrivateKey.Bytes()...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(open)))
	return append(b, open...), nil
}

// Decode reads what Encode wrote and wipes b.
func Decode(b []byte) (Config, error) {
	defer clear(b)
	head := len(magic) + keySize + 4
	if len(b) < head || len(b) > maxSize || string(b[:len(magic)]) != magic {
		return Config{}, errors.New("decode keeper config: not one")
	}
	if n := binary.BigEndian.Uint32(b[head-4 : head]); int(n) != len(b)-head {
		return Config{}, fmt.Errorf("decode keeper config: length %d, want %d", n, len(b)-head)
	}
	var c Config
	if err := json.Unmarshal(b[head:], &c); err != nil {
		return Config{}, fmt.Errorf("decode keeper config: %w", err)
	}
	c.PrivateKey = enclave.NewSecret(b[len(magic) : len(magic)+keySize])
	if err := c.Check(); err != nil {
		return Config{}, fmt.Errorf("decode keeper config: %w", err)
	}
	return c, nil
}

// Processors is how many processors userspace WireGuard gets of a node's. Its packets are
// handed from worker to worker; on two processors one worker was a third faster than two, and
// what it takes is taken from the job.
func Processors(node int) int { return min(max(1, node/4), 8) }
