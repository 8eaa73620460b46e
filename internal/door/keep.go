package door

import (
	"context"
	"crypto/ed25519"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/slurm-enclave/slurm-enclave/internal/attest"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/fence"
	"github.com/slurm-enclave/slurm-enclave/internal/host/filter"
	"github.com/slurm-enclave/slurm-enclave/internal/host/link"
	"github.com/slurm-enclave/slurm-enclave/internal/host/monitor"
	"github.com/slurm-enclave/slurm-enclave/internal/host/process"
	"github.com/slurm-enclave/slurm-enclave/internal/host/spawn"
	"github.com/slurm-enclave/slurm-enclave/internal/keeper"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/client"
)

// Keep is enclave-keeper's main: it wires the keeper to this node. Its streams are /dev/null, so
// it writes into the node's log as prolog and epilog do.
func Keep(ctx context.Context) error {
	log, done := openLog()
	defer done()
	passed, err := spawn.Inherited()
	if err != nil {
		log.WithError(err).Error("keeper not started")
		return err
	}
	c := passed.Config
	entry := log.WithFields(logrus.Fields{"job": c.Key.Directory(), "node": c.Node, "program": "enclave-keeper"})
	err = keeper.Run(ctx, keeper.Parts{
		Host: spawn.Self{}, Verifier: &asNode{pin: c.Pin, address: c.Verifier}, Attester: attest.New(tsmDir),
		Mesh: link.Kernel{}.Mesh(), Fence: filter.Kernel{}, Stuck: process.StuckPeople(uidMin), Changes: changes(c), Log: entry, Granted: passed.Granted,
	}, c, passed.Ready)
	if err != nil {
		entry.WithError(err).Error("keeper ended, the enclave is closed on this node")
		return err
	}
	entry.Info("keeper ended")
	return nil
}

// changes says when the job's fence or mesh may have been changed.
func changes(c keeper.Config) func(context.Context) (<-chan struct{}, error) {
	return func(ctx context.Context) (<-chan struct{}, error) {
		return monitor.Changes(ctx, monitor.Of{Filter: fence.Name(c.Key.Job), Routes: mesh.Table(c.Key.Job), Device: c.Device})
	}
}

// asNode calls the verifier as this node. The certificate is read when it is needed, and read
// again when the verifier no longer knows it: a node may be enrolled anew while a job runs.
type asNode struct {
	pin     enclave.Digest
	address string

	mu     sync.Mutex
	client *client.Client
}

// renewPatience is how long one call looks for the verifier; the keeper tries again by itself.
const renewPatience = 2 * time.Second

// dial gives the client, or makes a new one in the place of a stale one.
func (a *asNode) dial(stale *client.Client) (*client.Client, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.client != nil && a.client != stale {
		return a.client, nil
	}
	certificate, err := client.LoadNode(StateDir)
	if err != nil {
		return nil, err
	}
	if a.client != nil {
		a.client.Close()
	}
	a.client = client.New(client.Options{Address: a.address, Pin: a.pin, Certificate: certificate, Patience: renewPatience})
	return a.client, nil
}

const codeCertificate enclave.Code = "E130"

// as makes a call, and makes it once more with a certificate read anew.
func as[A any](a *asNode, f func(*client.Client) (A, error)) (A, error) {
	var none A
	c, err := a.dial(nil)
	if err != nil {
		return none, err
	}
	out, err := f(c)
	if r, refused := enclave.AsRefusal(err); !refused || r.Code != codeCertificate {
		return out, err
	}
	if c, err = a.dial(c); err != nil {
		return none, err
	}
	return f(c)
}

// Nonce is keeper.Verifier's.
func (a *asNode) Nonce(ctx context.Context, r api.NonceRequest) (api.NonceAnswer, error) {
	return as(a, func(c *client.Client) (api.NonceAnswer, error) { return c.Nonce(ctx, r) })
}

// Renew is keeper.Verifier's.
func (a *asNode) Renew(ctx context.Context, r api.Announcement) (api.RenewAnswer, error) {
	return as(a, func(c *client.Client) (api.RenewAnswer, error) { return c.Renew(ctx, r) })
}

// Watch is keeper.Verifier's.
func (a *asNode) Watch(ctx context.Context, r api.WatchRequest) (api.WatchAnswer, error) {
	return as(a, func(c *client.Client) (api.WatchAnswer, error) { return c.Watch(ctx, r) })
}

// Lost is keeper.Verifier's.
func (a *asNode) Lost(ctx context.Context, r api.BrokenRequest) (api.BrokenAnswer, error) {
	return as(a, func(c *client.Client) (api.BrokenAnswer, error) { return c.Lost(ctx, r) })
}

// Key is keeper.Verifier's.
func (a *asNode) Key() ed25519.PublicKey {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.client == nil {
		return nil
	}
	return a.client.Key()
}
