package scale

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/host/machine"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/client"
)

// process is enclaved in a process of its own. It ends when its standard input does, so it never
// outlives this one.
type process struct {
	control *os.File
	done    chan error
	printed bytes.Buffer
	pid     int
}

const startTimeout = 60 * time.Second

// start runs enclaved and waits until it answers.
func (s *site) start(ctx context.Context) (*process, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start enclaved: %w", err)
	}
	p := &process{control: write, done: make(chan error, 1)}
	argv := append(append([]string{}, s.Server...), s.dir)
	if s.Profile != "" {
		profiles, bad := filepath.Abs(s.Profile)
		if bad == nil {
			bad = os.MkdirAll(profiles, 0o755)
		}
		if bad != nil {
			return nil, fmt.Errorf("make directory for profiles: %w", bad)
		}
		argv = append(argv, profiles)
	}
	go func() {
		status, bad := machine.Run(context.WithoutCancel(ctx), argv, os.Environ(), read, &p.printed, &p.printed)
		if bad == nil && status != 0 {
			bad = fmt.Errorf("enclaved ended with status %d: %s", status, bytes.TrimSpace(p.printed.Bytes()))
		}
		p.done <- errors.Join(bad, read.Close())
	}()
	admin := client.New(client.Options{Socket: s.path("s"), Patience: startTimeout})
	defer admin.Close()
	if _, err = admin.PendingEnrols(ctx); err == nil {
		p.pid, err = readPID(s.path("pid"))
	}
	if err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

func readPID(path string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(b))
}

func (p *process) command(line string) error {
	_, err := fmt.Fprintln(p.control, line)
	return err
}

func (p *process) stop() error {
	err := p.control.Close()
	return errors.Join(err, <-p.done)
}

// tick is the unit of times in /proc/PID/stat, USER_HZ, the same on all machines that Go runs on.
const tick = 10 * time.Millisecond

// usage reads the time that all threads together were on a processor, proc_pid_stat(5).
func (p *process) usage() (usage, error) {
	now := time.Now()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		return usage{}, fmt.Errorf("measure enclaved: %w", err)
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 13 {
		return usage{}, errors.New("measure enclaved: too few fields in stat")
	}
	user, err := strconv.Atoi(fields[11])
	if err != nil {
		return usage{}, fmt.Errorf("measure enclaved: %w", err)
	}
	system, err := strconv.Atoi(fields[12])
	if err != nil {
		return usage{}, fmt.Errorf("measure enclaved: %w", err)
	}
	return usage{at: now, cpu: time.Duration(user+system) * tick}, nil
}

// settle waits until enclaved has nothing to do: at its start it verifies the certificates that
// it knows. On a machine that others use, too, one quiet moment says little.
func (p *process) settle(ctx context.Context) error {
	const look, enough = 300 * time.Millisecond, 4
	for quiet := 0; ; {
		before, err := p.usage()
		if err != nil {
			return err
		}
		pause(ctx, time.Now().Add(look))
		after, err := p.usage()
		if quiet++; after.cpu-before.cpu > 2*tick {
			quiet = 0
		}
		if err != nil || ctx.Err() != nil || quiet == enough {
			return errors.Join(err, ctx.Err())
		}
	}
}

// peak is the most memory that was resident, in bytes.
func (p *process) peak() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		return 0, fmt.Errorf("measure enclaved: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb << 10, err
		}
	}
	return 0, errors.New("measure enclaved: no VmHWM in status")
}

// bareVerification is the processor's time for one ECDSA verification on P-384, as nothing else
// is made of it.
func bareVerification() (time.Duration, error) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return 0, fmt.Errorf("measure a verification: %w", err)
	}
	sum := sha512.Sum384([]byte("a report"))
	signature, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		return 0, fmt.Errorf("measure a verification: %w", err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const rounds = 200
	began, err := threadTime()
	if err != nil {
		return 0, err
	}
	for range rounds {
		if !ecdsa.VerifyASN1(&key.PublicKey, sum[:], signature) {
			return 0, errors.New("measure a verification: it failed")
		}
	}
	ended, err := threadTime()
	return (ended - began) / rounds, err
}

// threadTime is what this thread has used; RUSAGE_THREAD has no name in package syscall.
func threadTime() (time.Duration, error) {
	const rusageThread = 1
	var u syscall.Rusage
	if err := syscall.Getrusage(rusageThread, &u); err != nil {
		return 0, os.NewSyscallError("getrusage", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// descriptors makes sure that each side may hold a connection for each node. Go has raised the
// soft limit to the hard one already.
func descriptors(nodes int) error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	if need := uint64(nodes) + 200; l.Max < need {
		return fmt.Errorf("measure scale: %d open files are allowed, %d nodes need %d: raise the hard limit, ulimit -Hn", l.Max, nodes, need)
	}
	return nil
}
