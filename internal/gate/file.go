package gate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// Directory is where the gate files of a node are.
type Directory struct {
	Path  string // /run/slurm-enclave/gate
	Owner uint32 // who must own it and the files: 0 but in tests
}

// WriteGo admits a job: the file is whole or not there, for a reader as for a crash. A DENY of
// the job is not touched; the plugin looks at it first.
func (d Directory) WriteGo(g Go) error { return d.write(g.Job, ".go", g.MarshalText) }

// WriteDeny refuses a job.
func (d Directory) WriteDeny(r Deny) error { return d.write(r.Job, ".deny", r.MarshalText) }

// WriteView says where the job's view of data is, or is to be.
func (d Directory) WriteView(v View) error { return d.write(v.Job, ".view", v.MarshalText) }

// ReadView gives it; fs.ErrNotExist when the view is the node's own, or the job has none.
func (d Directory) ReadView(job uint32) (v View, err error) {
	root, err := d.open()
	if err != nil {
		return View{}, fmt.Errorf("read gate file: %w", err)
	}
	defer func() { _ = root.Close() }()
	b, err := root.ReadFile(strconv.FormatUint(uint64(job), 10) + ".view")
	if err == nil {
		err = v.UnmarshalText(b)
	}
	if err == nil && v.Job != job {
		err = fmt.Errorf("it speaks of job %d", v.Job)
	}
	if err != nil {
		return View{}, fmt.Errorf("read gate file: %w", err)
	}
	return v, nil
}

// Admitted says whether there is a GO of the job, whatever it says.
func (d Directory) Admitted(job uint32) bool {
	_, err := os.Lstat(filepath.Join(d.Path, strconv.FormatUint(uint64(job), 10)+".go"))
	return !errors.Is(err, fs.ErrNotExist)
}

// RemoveGo withdraws the admission of a job and leaves a DENY where it is.
func (d Directory) RemoveGo(job uint32) error { return d.remove(job, ".go", "+.go") }

// Remove deletes every gate file of a job id, also a half-written one. A job id comes again when
// a job is requeued, and what an earlier start was granted or denied says nothing about the next.
func (d Directory) Remove(job uint32) error {
	return d.remove(job, ".go", ".deny", ".view", "+.go", "+.deny", "+.view")
}

func (d Directory) write(job uint32, end string, text func() ([]byte, error)) error {
	b, err := text()
	if err != nil {
		return err
	}
	root, err := d.open()
	if err != nil {
		return fmt.Errorf("write gate file: %w", err)
	}
	defer func() { _ = root.Close() }()
	name := strconv.FormatUint(uint64(job), 10) + end
	half := strconv.FormatUint(uint64(job), 10) + "+" + end
	if err = root.Remove(half); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write gate file: %w", err)
	}
	err = d.fill(root, half, b)
	if err == nil {
		err = root.Rename(half, name)
	}
	if err != nil {
		return fmt.Errorf("write gate file: %w", errors.Join(err, root.Remove(half)))
	}
	return nil
}

func (d Directory) fill(root *os.Root, name string, b []byte) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return err
	}
	// The mode is set again because the umask of whoever started us may have taken bits.
	_, err = f.Write(b)
	return errors.Join(err, f.Chmod(0o400), f.Sync(), f.Close())
}

func (d Directory) remove(job uint32, ends ...string) error {
	remove := func(name string) error { return os.Remove(filepath.Join(d.Path, name)) }
	root, err := d.open()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		// GO has to go, and unlinking needs no descriptor. open has looked at the directory, and only root
		// could have exchanged it since.
	case err != nil:
		return fmt.Errorf("remove gate file: %w", err)
	default:
		defer func() { _ = root.Close() }()
		remove = root.Remove
	}
	var errs []error
	for _, end := range ends {
		err := remove(strconv.FormatUint(uint64(job), 10) + end)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove gate file: %w", err))
		}
	}
	return errors.Join(errs...)
}

// look refuses a directory in which somebody else could have put a file.
func (d Directory) look() (os.FileInfo, error) {
	info, err := os.Lstat(d.Path)
	if err != nil {
		return nil, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || info.Mode().Perm() != 0o700 || st.Uid != d.Owner {
		return nil, fmt.Errorf("%s is not a directory with mode 0700 of uid %d", d.Path, d.Owner)
	}
	return info, nil
}

// open holds on to the directory that was looked at.
func (d Directory) open() (*os.Root, error) {
	info, err := d.look()
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(d.Path)
	if err != nil {
		return nil, err
	}
	if again, err := root.Stat("."); err != nil || !os.SameFile(info, again) {
		return nil, errors.Join(fmt.Errorf("%s was exchanged", d.Path), err, root.Close())
	}
	return root, nil
}
