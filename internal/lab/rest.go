package lab

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/host/machine"
)

// Where slurmrestd is found on n0. The socket is for whoever is the user enclave, the port for whoever
// has a token.
const (
	restSocket = "/run/slurmrestd/slurmrestd.sock"
	restPort   = "127.0.0.1:6820"
	tokenPath  = "/var/lib/slurm-enclave/slurm.token" //nolint:gosec // where it lies, not what it is

	tokenKeyPath = "/var/spool/slurmctld/jwt_hs256.key" //nolint:gosec // as above
)

// tokens are the lines of slurm.conf and slurmdbd.conf that let people come with a token. Who can read
// the key can be anybody, root included.
func (s Spec) tokens() []string {
	if !s.Rest {
		return nil
	}
	return []string{"AuthAltTypes=auth/jwt", "AuthAltParameters=jwt_key=" + tokenKeyPath}
}

// tokenKey makes the key that slurmctld and slurmdbd sign tokens with.
func (s *supervisor) tokenKey(ctx context.Context, n0 *computer) error {
	if !s.spec.Rest {
		return nil
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // crypto/rand.Read never fails
	for _, p := range []machine.Program{
		{Argv: []string{"install", "-o", "slurm", "-g", "slurm", "-m", "0600", "/dev/null", tokenKeyPath}},
		{Argv: []string{"dd", "status=none", "conv=notrunc", "of=" + tokenKeyPath}, Input: hex.EncodeToString(key)},
	} {
		if _, err := n0.run(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// startRest starts slurmrestd twice, as a site may have it: as the user enclave on a socket that only
// this user may open, and as nobody on a port for those who bring a token.
func (s *supervisor) startRest(ctx context.Context, n0 *computer) error {
	if !s.spec.Rest {
		return nil
	}
	for _, argv := range [][]string{
		{"install", "-d", "-o", enclaveUser, "-g", enclaveUser, "-m", "0700", "/run/slurmrestd"},
		{"install", "-d", "-o", enclaveUser, "-g", enclaveUser, "-m", "0755", "/var/lib/slurm-enclave"},
		{"install", "-o", enclaveUser, "-g", enclaveUser, "-m", "0400", "/dev/null", tokenPath},
	} {
		if _, err := n0.run(ctx, machine.Program{Argv: argv}); err != nil {
			return err
		}
	}
	if err := n0.start(ctx, "slurmrestd", enclaveUser, "slurmrestd", "-a", "rest_auth/local", "unix:"+restSocket); err != nil {
		return err
	}
	err := n0.start(ctx, "slurmrestd-jwt", "nobody", "env", "SLURM_JWT=daemon", "slurmrestd", "-a", "rest_auth/jwt", restPort)
	if err != nil {
		return err
	}
	out, err := n0.run(ctx, machine.Program{Argv: []string{"scontrol", "token", "username=" + enclaveUser, "lifespan=86400"}})
	if err != nil {
		return err
	}
	token := strings.TrimPrefix(strings.TrimSpace(out), "SLURM_JWT=")
	_, err = n0.run(ctx, machine.Program{Argv: []string{"dd", "status=none", "conv=notrunc", "of=" + tokenPath}, Input: token})
	if err != nil {
		return err
	}
	return n0.until(ctx, machine.Program{Argv: []string{"test", "-S", restSocket}}, always)
}
