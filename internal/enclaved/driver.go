package enclaved

import (
	"bytes"
	"context"
	"errors"

	"github.com/sirupsen/logrus"

	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/host/file"
	"github.com/slurm-enclave/slurm-enclave/internal/host/program"
	"github.com/slurm-enclave/slurm-enclave/internal/site"
	"github.com/slurm-enclave/slurm-enclave/internal/slurm"
)

// maxToken bounds a token of Slurm's; one of ours has 200 bytes.
const maxToken = 16 << 10

// codeRest: slurmrestd does not answer as it should.
const codeRest enclave.Code = "E533"

// driver is the way to Slurm that the site has chosen.
func driver(c config.Slurm) site.Slurm {
	commands := slurm.NewCLI(program.Runner{})
	if c.Driver != "rest" {
		return commands
	}
	return slurm.NewREST(endpoint(c.Rest), commands)
}

func endpoint(c config.Rest) slurm.Endpoint {
	if c.Socket != "" {
		return slurm.Endpoint{Socket: c.Socket}
	}
	return slurm.Endpoint{URL: c.URL, User: c.User, Token: func() (enclave.Secret, error) {
		b, err := file.Private(c.TokenFile, maxToken)
		if err != nil {
			return enclave.Secret{}, err
		}
		token := bytes.TrimPrefix(bytes.TrimSpace(b), []byte("SLURM_JWT=")) // as scontrol token prints it
		if len(token) == 0 || bytes.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
			clear(b)
			return enclave.Secret{}, errors.New("read " + c.TokenFile + ": want the one line that scontrol token prints")
		}
		return enclave.NewSecret(token), nil
	}}
}

// sayDriver tells once how Slurm is reached, and what of it goes by command. A slurmrestd that is not
// there yet is an alarm, not a reason to stay down: jobs wait for it, as they do for slurmctld.
func (d *daemon) sayDriver(ctx context.Context, s site.Slurm) {
	r, ok := s.(*slurm.REST)
	if !ok {
		return
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	version, err := r.Version(ctx)
	if err != nil {
		d.verifier.Raise(ctx, codeRest, err.Error())
		return
	}
	commands, _ := r.ByCommand(ctx) // Version has learnt it
	d.log.WithFields(logrus.Fields{"api": version, "by_command": commands}).Info("slurm is reached by slurmrestd")
}
