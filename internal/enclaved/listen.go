package enclaved

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/host/program"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/server"
)

// askTimeout bounds one look into the accounting or the name service.
const askTimeout = 5 * time.Second

func listenPublic(ctx context.Context, address string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, wrong("E013", "is another enclaved running, or controller.listen another host's?", err)
	}
	return l, nil
}

// listenLocal takes the socket over from an enclaved that crashed, never from one that answers.
// Anybody may connect: the kernel says who it is.
func listenLocal(ctx context.Context, path string) (net.Listener, error) {
	fix := "make its directory the enclave user's, mode 0755"
	if c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path); err == nil {
		return nil, wrong("E014", "stop it first", errors.Join(fmt.Errorf("another enclaved answers on %s", path), c.Close()))
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		if err := os.Remove(path); err != nil {
			return nil, wrong("E014", fix, err)
		}
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, wrong("E014", fix, err)
	}
	if err := os.Chmod(path, 0o666); err != nil { // SO_PEERCRED decides, not the mode
		return nil, wrong("E014", fix, errors.Join(err, l.Close()))
	}
	return l, nil
}

// runner runs a program; host/program's Runner is one.
type runner interface {
	Run(ctx context.Context, name string, args ...string) ([]byte, error)
}

// slurmUser finds SlurmUser's uid where all programs do: os/user reads no LDAP without cgo.
func slurmUser(ctx context.Context, name string) (uint32, error) {
	line, err := passwd(ctx, program.Runner{}, name)
	if err == nil && len(line) > 2 {
		var uid uint64
		if uid, err = strconv.ParseUint(line[2], 10, 32); err == nil {
			return uint32(uid), nil
		}
	}
	return 0, wrong("E012", "controller.slurm_user must be SlurmUser of slurm.conf", fmt.Errorf("find user %q: %w", name, errors.Join(err, errNoUser)))
}

var errNoUser = errors.New("no such user")

func passwd(ctx context.Context, run runner, key string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	out, err := run.Run(ctx, "getent", "passwd", key)
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimSpace(string(out)), ":"), nil
}

// levels asks Slurm's accounting what a user may do.
type levels struct{ run runner }

// Rank is server.Levels'. A level or an account that is not understood is none.
func (l levels) Rank(ctx context.Context, uid uint32) (server.Level, []string, error) {
	line, err := passwd(ctx, l.run, strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return server.User, nil, fmt.Errorf("find uid %d: %w", uid, err)
	}
	name := line[0]
	if name == "" || strings.ContainsAny(name, ",= ") {
		return server.User, nil, fmt.Errorf("find uid %d: %w", uid, errNoUser)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	out, err := l.run.Run(ctx, "sacctmgr", "-n", "-P", "show", "user", "where", "name="+name, "withcoord", "format=User,AdminLevel,Coordinators")
	if err != nil {
		return server.User, nil, fmt.Errorf("ask for the rank of %s: %w", name, err)
	}
	f := strings.Split(strings.TrimSuffix(string(out), "\n"), "|")
	if len(f) != 3 || f[0] != name || strings.Contains(f[2], "\n") {
		return server.User, nil, nil // no user of Slurm's, or more than one
	}
	var accounts []string
	if f[2] != "" {
		accounts = strings.Split(f[2], ",")
	}
	switch f[1] {
	case "Administrator":
		return server.Administrator, accounts, nil
	case "Operator":
		return server.Operator, accounts, nil
	}
	return server.User, accounts, nil
}

// timely gives every call of the site role a deadline: programs are never run without one.
type timely struct{ site verifier.Site }

const siteTimeout = 20 * time.Second

func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, siteTimeout)
}

// JobState is verifier.Jobs'.
func (t timely) JobState(ctx context.Context, job uint32) (enclave.JobState, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	return t.site.JobState(ctx, job)
}

// Drain is verifier.Nodes'.
func (t timely) Drain(ctx context.Context, node, reason string) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	return t.site.Drain(ctx, node, reason)
}

// Resume is verifier.Nodes'.
func (t timely) Resume(ctx context.Context, node, reasonPrefix string, drained time.Time) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	return t.site.Resume(ctx, node, reasonPrefix, drained)
}

// Requeue is verifier.Outcomes'.
func (t timely) Requeue(ctx context.Context, key enclave.JobKey, reason string) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	return t.site.Requeue(ctx, key, reason)
}

// End is verifier.Outcomes'.
func (t timely) End(ctx context.Context, key enclave.JobKey, reason string) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	return t.site.End(ctx, key, reason)
}

// RecordVerdict is verifier.Outcomes'.
func (t timely) RecordVerdict(ctx context.Context, key enclave.JobKey, comment []byte) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	return t.site.RecordVerdict(ctx, key, comment)
}
