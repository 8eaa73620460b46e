package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/host/machine"
)

// Job is what Submit is asked to run.
type Job struct {
	User      string
	Partition string
	Nodes     int
	Argv      []string // a program of this machine is copied to the user's home first
}

// Submit sends the job from the login host by sbatch, waits for its end, and copies its output
// to out and what Slurm says to errOut. The job's exit status is the returned int.
func Submit(ctx context.Context, j Job, out, errOut io.Writer) (int, error) {
	s, err := Load()
	if err != nil {
		return 0, err
	}
	_, home, err := account(j.User)
	if err != nil {
		return 0, err
	}
	argv, err := stage(s, j.User, home, j.Argv)
	if err != nil {
		return 0, err
	}
	script := "#!/bin/sh\nexec srun -- " + quote(argv) + "\n"
	sbatch := []string{
		"sbatch", "--parsable", "--wait", "--partition=" + j.Partition, fmt.Sprintf("--nodes=%d", j.Nodes),
		"--ntasks-per-node=1", "--job-name=" + filepath.Base(j.Argv[0]), "--output=" + home + "/slurm-%j.out",
	}
	cmd, err := s.Command("login", j.User, sbatch)
	if err != nil {
		return 0, err
	}
	id := strings.Builder{}
	status, err := machine.Run(ctx, cmd, environment(), strings.NewReader(script), &id, errOut)
	if err != nil {
		return 0, err
	}
	job, _, _ := strings.Cut(strings.TrimSpace(id.String()), ";")
	if job == "" {
		return status, nil // sbatch has said why
	}
	_, _ = fmt.Fprintf(errOut, "job %s in %s\n", job, j.Partition)
	cmd, err = s.Command("login", j.User, []string{"cat", home + "/slurm-" + job + ".out"})
	if err != nil {
		return 0, err
	}
	if _, err := machine.Run(ctx, cmd, environment(), nil, out, errOut); err != nil {
		return 0, err
	}
	return status, nil
}

// stage copies a program that stands in a folder of this machine into the user's home: the
// lab's hosts have folders of their own.
func stage(s State, user, home string, argv []string) ([]string, error) {
	if len(argv) == 0 {
		return nil, errors.New("submit job: no program given")
	}
	if !strings.Contains(argv[0], "/") || strings.HasPrefix(argv[0], "/usr/") || strings.HasPrefix(argv[0], "/bin/") {
		return argv, nil
	}
	b, err := os.ReadFile(argv[0])
	if err != nil {
		return nil, fmt.Errorf("submit job: %w", err)
	}
	to := home + "/" + filepath.Base(argv[0])
	cmd, err := s.Command("login", user, []string{"sh", "-c", `cat > "$0.new" && chmod 755 "$0.new" && mv "$0.new" "$0"`, to})
	if err != nil {
		return nil, err
	}
	status, err := machine.Run(context.Background(), cmd, environment(), strings.NewReader(string(b)), io.Discard, os.Stderr)
	if err != nil {
		return nil, err
	}
	if status != 0 {
		return nil, fmt.Errorf("copy %s to %s: exit status %d", argv[0], to, status)
	}
	return append([]string{to}, argv[1:]...), nil
}

// quote writes words for a POSIX shell.
func quote(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
	}
	return strings.Join(quoted, " ")
}
