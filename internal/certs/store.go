package certs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"
)

// maxFile bounds a file of the store.
const maxFile = 4 << 20

// Store is the directory. Names are beneath it and lead nowhere else, whatever links the
// directory holds: root may write into a directory that another user owns.
type Store struct{ root *os.Root }

// Open opens the directory, which must be there.
func Open(dir string) (*Store, error) {
	r, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open certificate store: %w", err)
	}
	return &Store{r}, nil
}

// Close ends the use of the store.
func (s *Store) Close() error { return s.root.Close() }

// Read gives a file, and when it was written.
func (s *Store) Read(name string) ([]byte, time.Time, error) {
	f, err := s.root.Open(name)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("read certificate store: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file", name)
	}
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("read certificate store: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", name, maxFile)
	}
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("read certificate store: %w", err)
	}
	return b, info.ModTime(), nil
}

// Find gives the first file that is there under one of the keys, and nil when none is.
func (s *Store) Find(keys []Key) ([]byte, error) {
	for _, k := range keys {
		b, _, err := s.Read(k.Path())
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return b, err
	}
	return nil, nil
}

// Write puts a file there, whole or not at all: enclaved may read at any time, and the power may
// fail at any time.
func (s *Store) Write(name string, b []byte) error {
	if err := s.write(name, b); err != nil {
		return fmt.Errorf("write certificate store: %w", err)
	}
	return nil
}

func (s *Store) write(name string, b []byte) error {
	dir := path.Dir(name)
	if err := s.root.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	half := path.Join(dir, "."+path.Base(name)+"+")
	if err := s.root.Remove(half); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := s.root.OpenFile(half, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = s.root.Rename(half, name)
	}
	if err != nil {
		return errors.Join(err, s.root.Remove(half))
	}
	d, err := s.root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Names lists all files by name, in order, without those that are being written.
func (s *Store) Names() ([]string, error) {
	var out []string
	err := fs.WalkDir(s.root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() && !strings.HasPrefix(path.Base(name), ".") {
			out = append(out, name)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list certificate store: %w", err)
	}
	return out, nil
}
