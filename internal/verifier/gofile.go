package verifier

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// keepGo is for how long after a start's end its go file stays: EpilogSlurmctld may come late, or not
// have heard the answer to its first call, and must not take a start that ran for one that did not.
const keepGo = 24 * time.Hour

// sweepGo removes the go files of starts that ended long ago: one that stays would speak for another
// job when its number comes again.
func (v *Verifier) sweepGo(ctx context.Context) {
	list, err := os.ReadDir(filepath.Dir(v.goFile(enclave.JobKey{})))
	if err != nil { // none was written yet
		return
	}
	for _, f := range list {
		info, err := f.Info()
		if err != nil || time.Since(info.ModTime()) < keepGo {
			continue
		}
		k, err := enclave.ParseDirectory(v.Config.Cluster, f.Name())
		if err != nil {
			continue
		}
		e, err := v.Ledger.Entry(ctx, k)
		if err == nil && e.Ended != nil && time.Since(*e.Ended) >= keepGo {
			_ = os.Remove(v.goFile(k)) // tried again in a minute
		}
	}
}

// goFile tells EpilogSlurmctld, even with enclaved away, that all ranks of the start were let in.
func (v *Verifier) goFile(k enclave.JobKey) string {
	return filepath.Join(v.Config.Controller.State, "go", k.Directory())
}

// writeGo makes the go file and does not return before it is on the disk. It holds no secret and
// is readable for SlurmUser.
func (v *Verifier) writeGo(k enclave.JobKey) (err error) {
	path := v.goFile(k)
	if err = os.MkdirAll(filepath.Dir(path), 0o755); err != nil { // SlurmUser reads it
		return fmt.Errorf("make go directory: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o444) // SlurmUser reads it
	if err != nil {
		return fmt.Errorf("make go file: %w", err)
	}
	_, err = fmt.Fprintf(f, "%s\n", k)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write go file: %w", err)
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("sync go directory: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}
