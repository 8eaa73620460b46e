package main

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/slurm-enclave/slurm-enclave/internal/door"

	"github.com/slurm-enclave/slurm-enclave/internal/attest"
	"github.com/slurm-enclave/slurm-enclave/internal/certs"
	"github.com/slurm-enclave/slurm-enclave/internal/cli"
	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/doctor"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/host/munge"
	"github.com/slurm-enclave/slurm-enclave/internal/host/program"
	"github.com/slurm-enclave/slurm-enclave/internal/host/survey"
	"github.com/slurm-enclave/slurm-enclave/internal/release"
	"github.com/slurm-enclave/slurm-enclave/internal/slurm"
	"github.com/slurm-enclave/slurm-enclave/internal/slurmconf"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/client"
)

const (
	patience = 5 * time.Second                 // how long a command tries to reach enclaved
	tsm      = "/sys/kernel/config/tsm/report" // the kernel's configfs-tsm
	state    = "/var/lib/slurm-enclave"        // of the node: its key and certificate
)

// load reads enclave.yaml with the caller's own rights.
func load(path string) (config.Config, enclave.Digest, error) {
	f, err := os.Open(path)
	if err != nil {
		return config.Config{}, enclave.Digest{}, err
	}
	defer func() { _ = f.Close() }() // only read
	cfg, err := config.Load(f)
	if err != nil {
		return config.Config{}, enclave.Digest{}, fmt.Errorf("%s: %w", path, err)
	}
	pin, err := cfg.Verifier.KeyDigest()
	if err != nil {
		return config.Config{}, enclave.Digest{}, fmt.Errorf("%s: %w", path, err)
	}
	return cfg, pin, nil
}

// open makes people's way to enclaved: one pinned key, and a munge credential for each question.
func open(_ context.Context, path string) (cli.Source, error) {
	cfg, pin, err := load(path)
	if err != nil {
		return nil, err
	}
	return client.New(client.Options{Address: cfg.Verifier.Address, Pin: pin, Patience: patience, Credential: munge.Munge{}.Encode}), nil
}

// node is what `enclave node` needs: as a stranger from a node, as an admin on the controller.
func node() cli.Machine {
	return cli.Machine{
		Name:   nodeName,
		Attest: attest.New(tsm).Evidence,
		Enroller: func(path string) (cli.Enroller, enclave.Digest, error) {
			cfg, pin, err := load(path)
			if err != nil {
				return nil, enclave.Digest{}, err
			}
			return client.New(client.Options{Address: cfg.Verifier.Address, Pin: pin, Patience: patience}), pin, nil
		},
		Prover: prover,
		Sound:  door.Sound,
		Registrar: func(path string) (cli.Registrar, error) {
			cfg, _, err := load(path)
			if err != nil {
				return nil, err
			}
			return client.New(client.Options{Socket: cfg.Controller.Socket, Patience: patience}), nil
		},
		Store: func(c tls.Certificate) error { return client.StoreNode(state, c) },
		In:    os.Stdin,
	}
}

// prover is an enrolled node's way to enclaved. Who it is says its certificate.
func prover(path string) (cli.Prover, enclave.Digest, cli.Enrolled, error) {
	cfg, pin, err := load(path)
	if err != nil {
		return nil, enclave.Digest{}, cli.Enrolled{}, err
	}
	cert, err := client.LoadNode(state)
	if err != nil {
		return nil, enclave.Digest{}, cli.Enrolled{}, fmt.Errorf("this node is not enrolled: %w", err)
	}
	key, ok := cert.PrivateKey.(ed25519.PrivateKey)
	if !ok {
		return nil, enclave.Digest{}, cli.Enrolled{}, errors.New("the node's key is not of Ed25519")
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		return nil, enclave.Digest{}, cli.Enrolled{}, fmt.Errorf("read the node's certificate: %w", err)
	}
	self := cli.Enrolled{Node: leaf.Subject.CommonName, Key: enclave.PublicKey(key.Public().(ed25519.PublicKey))} //nolint:forcetypeassert // the public half of an Ed25519 key is one
	return client.New(client.Options{Address: cfg.Verifier.Address, Pin: pin, Patience: patience, Certificate: cert}), pin, self, nil
}

// nodeName is what slurm.conf calls this host. Where that can't be read here it is the host's name up to the
// first dot: one that is not in the inventory is refused by the verifier.
func nodeName(path string) (string, error) {
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("read host name: %w", err)
	}
	cfg, _, err := load(path)
	if err != nil {
		return "", err
	}
	conf, err := slurmconf.Read(survey.Configuration{}, confPath(cfg, ""))
	if err != nil {
		return "", err
	}
	name, err := doctor.NodeName(conf, host)
	if errors.Is(err, doctor.ErrNoNodes) {
		name, _, _ = strings.Cut(host, ".")
		return name, nil
	}
	return name, err
}

// host is this node outside of any job.
func host(log *logrus.Logger) func(config string) (cli.Closable, error) {
	return func(config string) (cli.Closable, error) { return door.Host(log, config) }
}

// storehouse is what `enclave certs` needs: the store's files with the caller's own rights, and the
// admin's way to enclaved.
func storehouse() cli.Storehouse {
	settings := func(path string) (config.Controller, error) {
		cfg, _, err := load(path)
		return cfg.Controller, err
	}
	info, err := os.Stdout.Stat()
	return cli.Storehouse{
		Settings: settings,
		Roots:    verifier.LoadRoots,
		Chips: func(ctx context.Context, path string) (api.Chips, error) {
			c, errConfig := settings(path)
			if errConfig != nil {
				return api.Chips{}, errConfig
			}
			return client.New(client.Options{Socket: c.Socket, Patience: patience}).Chips(ctx)
		},
		Server: func(address string) (certs.Getter, error) {
			return certs.NewKDS(address, "slurm-enclave/"+release.Version)
		},
		Pause:    pause,
		Now:      time.Now,
		Terminal: err == nil && info.Mode()&os.ModeCharDevice != 0,
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// maxAccounting bounds what sacct prints: some million records.
const maxAccounting = 512 << 20

// sacct is Slurm's accounting with the caller's own rights, in times without a zone to mistake.
func sacct() *slurm.CLI {
	return slurm.NewCLI(program.Runner{MaxOutput: maxAccounting, Environment: []string{"TZ=UTC"}})
}
