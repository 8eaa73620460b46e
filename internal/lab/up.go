package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/host/machine"
	"github.com/slurm-enclave/slurm-enclave/internal/host/process"
)

// requirements are the programs of this machine that the lab runs, and the Debian packages that
// hold them. A suite brings its own Slurm.
func requirements(s Spec) map[string]string {
	if s.Suite != "" {
		return map[string]string{"nsenter": "util-linux", "chroot": "coreutils", "mkfs.ext4": "e2fsprogs", "fusermount3": "fuse3"}
	}
	need := map[string]string{
		"slurmctld": "slurmctld", "slurmd": "slurmd", "slurmdbd": "slurmdbd", "sbatch": "slurm-client",
		"munged": "munge", "mariadbd": "mariadb-server", "mariadb": "mariadb-client", "nft": "nftables",
		"nsenter": "util-linux", "setpriv": "util-linux", "install": "coreutils", "mkfs.ext4": "e2fsprogs",
		"fusermount3": "fuse3",
	}
	if s.Rest {
		need["slurmrestd"] = "slurmrestd, and slurm-wlm-jwt-plugin"
	}
	return need
}

// Up brings the lab up, or finds it up already with the same number of nodes. Progress is
// one line a step.
func Up(ctx context.Context, spec Spec, programs string, progress io.Writer) error {
	if err := check(spec); err != nil {
		return err
	}
	old, err := Load()
	switch {
	case err == nil && old.Spec == spec && old.Ready:
		_, err = fmt.Fprintf(progress, "the lab is up already: %d nodes\n", spec.Nodes)
		return err
	case err == nil:
		return fmt.Errorf("bring lab up: one with %d nodes is up; run enclave-lab down first", old.Spec.Nodes)
	case !errors.Is(err, ErrDown):
		return err
	}
	if err = sweep(ctx); err != nil {
		return err
	}
	if err = prepare(ctx, spec, programs, progress); err != nil {
		return fmt.Errorf("bring lab up: %w", err)
	}
	started := time.Now()
	if err = launch(ctx, spec, programs); err != nil {
		return errors.Join(err, Down(context.WithoutCancel(ctx)))
	}
	_, err = fmt.Fprintf(progress, "the lab is up: %d nodes in cpu-sev, %d in cpu, SIMULATED attestation; %.1f s\n",
		spec.Nodes, spec.Plain, time.Since(started).Seconds())
	return err
}

func check(spec Spec) error {
	if err := spec.Check(); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("bring lab up: must be root, since it makes namespaces and mounts of its own")
	}
	var programs []string
	for p := range requirements(spec) {
		programs = append(programs, p)
	}
	missing := machine.Missing(programs)
	if len(missing) == 0 {
		return nil
	}
	var what []string
	for _, p := range missing {
		what = append(what, fmt.Sprintf("%s (package %s)", p, requirements(spec)[p]))
	}
	return fmt.Errorf("bring lab up: missing %s; make deps installs them", strings.Join(what, ", "))
}

func launch(ctx context.Context, spec Spec, programs string) error {
	if err := os.MkdirAll(filepath.Join(Directory(), "root"), 0o755); err != nil {
		return err
	}
	log, err := os.OpenFile(logPath(), os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	tell, theirIdentity, err := pipeTo()
	if err != nil {
		return err
	}
	theirAnswer, answer, err := pipeFrom()
	if err != nil {
		return err
	}
	p, err := machine.Clone([]string{"supervise", programs}, named(), []*os.File{theirIdentity, theirAnswer}, log)
	if err != nil {
		return err
	}
	_ = theirIdentity.Close() // the supervisor's own copies are what counts
	_ = theirAnswer.Close()
	start, err := process.Began(p.Pid)
	if err != nil {
		return err
	}
	state := State{Spec: spec, Supervisor: p.Pid, StartTime: start}
	if err := state.save(); err != nil {
		return err
	}
	if err := errors.Join(json.NewEncoder(tell).Encode(state), tell.Close()); err != nil {
		return fmt.Errorf("tell the supervisor who it is: %w", err)
	}
	return hear(ctx, answer)
}

// hear waits for the supervisor's answer: a line "up", or what went wrong.
func hear(ctx context.Context, answer *os.File) error {
	stop := context.AfterFunc(ctx, func() { _ = answer.Close() })
	defer stop()
	line, err := bufio.NewReader(answer).ReadString('\n')
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("bring lab up: %w", ctx.Err())
	case err != nil:
		b, _ := os.ReadFile(logPath())
		return fmt.Errorf("bring lab up: its supervisor died: %s", b)
	case line != "up\n":
		return fmt.Errorf("bring lab up: %s", strings.ReplaceAll(strings.TrimSpace(line), `\n`, "\n"))
	}
	return nil
}

// SuperviseFrom is the life of the supervisor, started by Up with these pipes.
func SuperviseFrom(ctx context.Context, identity io.Reader, answer io.WriteCloser, programs string) error {
	var state State
	if err := json.NewDecoder(identity).Decode(&state); err != nil {
		return fmt.Errorf("read identity: %w", err)
	}
	return Supervise(ctx, state, programs, func(err error) {
		line := "up"
		if err != nil {
			line = strings.ReplaceAll(err.Error(), "\n", `\n`)
		}
		_, _ = fmt.Fprintln(answer, line) // a starter that has gone needs no answer
		_ = answer.Close()
	})
}

// named is what the supervisor's environment says of the lab's name.
func named() []string {
	if name, ok := os.LookupEnv(NameVariable); ok {
		return []string{NameVariable + "=" + name}
	}
	return nil
}

func logPath() string { return filepath.Join(Directory(), "lab.log") }
