package scale

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"

	"github.com/sirupsen/logrus"

	"github.com/slurm-enclave/slurm-enclave/internal/enclaved"
	"github.com/slurm-enclave/slurm-enclave/internal/slurm"
)

// Serve is the process that is measured: enclaved with the files in dir, until control ends. With
// a directory for profiles it writes them there when control says so.
func Serve(ctx context.Context, dir, profiles string, control io.Reader, log *logrus.Logger) error {
	if err := os.WriteFile(filepath.Join(dir, "pid"), []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		return err
	}
	ctx, end := context.WithCancel(ctx)
	defer end()
	told := make(chan error, 1)
	go func() { defer end(); told <- obey(control, profiles) }()
	err := enclaved.Run(ctx, log, enclaved.Options{Config: filepath.Join(dir, "enclave.yaml"), Trust: trust(dir), Slurm: patient{}})
	if err != nil {
		return err
	}
	return <-told
}

// obey does what control says, line by line.
func obey(control io.Reader, profiles string) error {
	lines := bufio.NewScanner(control)
	var cpu *os.File
	for lines.Scan() {
		var err error
		switch {
		case profiles == "":
		case lines.Text() == "profile":
			if cpu, err = create(profiles, "cpu.pprof"); err == nil {
				err = pprof.StartCPUProfile(cpu)
			}
		case lines.Text() == "end profile" && cpu != nil:
			pprof.StopCPUProfile()
			err = errors.Join(cpu.Close(), memory(profiles), heap(profiles))
		}
		if err != nil {
			return fmt.Errorf("profile: %w", err)
		}
	}
	return lines.Err()
}

func create(dir, name string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
}

// memory says what the resident memory is made of, in MiB: the profile knows the heap alone.
func memory(dir string) error {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	f, err := create(dir, "memory.txt")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "heap_live=%d heap_in_use=%d heap_idle=%d heap_returned=%d stacks=%d other=%d collections=%d goroutines=%d\n",
		m.HeapAlloc>>20, m.HeapInuse>>20, m.HeapIdle>>20, m.HeapReleased>>20, m.StackInuse>>20,
		(m.MSpanSys+m.MCacheSys+m.GCSys+m.OtherSys+m.BuckHashSys)>>20, m.NumGC, runtime.NumGoroutine())
	return errors.Join(err, f.Close())
}

func heap(dir string) error {
	f, err := create(dir, "heap.pprof")
	if err != nil {
		return err
	}
	runtime.GC() // or what is garbage since long counts as memory in use
	return errors.Join(pprof.WriteHeapProfile(f), f.Close())
}

// patient stands in for Slurm: every job runs, every errand is done.
type patient struct{}

// Job is running.
func (patient) Job(_ context.Context, id uint32) (slurm.Job, error) {
	return slurm.Job{ID: id, State: "RUNNING", Batch: true, Requeue: true, AllocNode: "login1"}, nil
}

// Node is idle.
func (patient) Node(_ context.Context, name string) (slurm.Node, error) {
	return slurm.Node{Name: name, State: []string{"idle"}}, nil
}

// Requeue does nothing, nor do the others below.
func (patient) Requeue(context.Context, uint32) error { return nil }

// Cancel does nothing.
func (patient) Cancel(context.Context, uint32) error { return nil }

// Drain does nothing.
func (patient) Drain(context.Context, string, string) error { return nil }

// Resume does nothing.
func (patient) Resume(context.Context, string) error { return nil }

// AdminComment is empty.
func (patient) AdminComment(context.Context, uint32) (string, bool, error) { return "", false, nil }

// SetAdminComment does nothing.
func (patient) SetAdminComment(context.Context, uint32, string) error { return nil }

// SetStoredComment does nothing.
func (patient) SetStoredComment(context.Context, uint32, string) error { return nil }
