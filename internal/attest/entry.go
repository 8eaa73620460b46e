package attest

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// maxBlob bounds what is read from the kernel's files.
const maxBlob = 1 << 20

var (
	errNoRoot     = errors.New("the kernel does not serve reports")
	errGeneration = errors.New("the entry changed while it was read")
)

// entry is one directory of configfs-tsm. It is ours alone: its name is random, so no other
// process can write its own question into it but on purpose, and then the generation tells.
type entry struct{ dir string }

func newEntry(root string) (entry, error) {
	if _, err := os.Stat(root); err != nil {
		return entry{}, fmt.Errorf("%w: %w", errNoRoot, err)
	}
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return entry{}, fmt.Errorf("name report entry: %w", err)
	}
	e := entry{filepath.Join(root, "enclave-"+strconv.FormatUint(binary.BigEndian.Uint64(b[:]), 36))}
	// #nosec G301 -- configfs gives its own mode
	if err := os.Mkdir(e.dir, 0o700); err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errors.ErrUnsupported) {
			return entry{}, fmt.Errorf("%w: %w", errNoRoot, err)
		}
		return entry{}, fmt.Errorf("make report entry: %w", err)
	}
	return e, nil
}

func (e entry) remove() error {
	if err := os.Remove(e.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove report entry: %w", err)
	}
	return nil
}

func (e entry) provider() (string, error) {
	b, err := e.read("provider")
	return strings.TrimSpace(string(b)), err
}

// report asks once. The answer counts only if the generation moved by exactly our write: a
// write lost by the kernel (it reports none at close) or made by another would else put the
// answer to another question into our hands.
func (e entry) report(reportData [64]byte) (report, certificates []byte, err error) {
	before, err := e.generation()
	if err != nil {
		return nil, nil, err
	}
	if err = e.write("inblob", reportData[:]); err != nil {
		return nil, nil, err
	}
	if report, err = e.read("outblob"); err != nil {
		return nil, nil, err
	}
	if certificates, err = e.read("auxblob"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	after, err := e.generation()
	if err != nil {
		return nil, nil, err
	}
	if after != before+1 {
		return nil, nil, fmt.Errorf("read report: %w: generation %d after %d", errGeneration, after, before)
	}
	if len(report) != reportSize {
		return nil, nil, fmt.Errorf("read report: %d bytes, want %d", len(report), reportSize)
	}
	return report, certificates, nil
}

func (e entry) generation() (uint64, error) {
	b, err := e.read("generation")
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read generation: %w", err)
	}
	return n, nil
}

func (e entry) read(name string) ([]byte, error) {
	f, err := os.Open(filepath.Join(e.dir, name)) // #nosec G304 -- below our own entry
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxBlob+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(b) > maxBlob {
		return nil, fmt.Errorf("read %s: more than %d bytes", name, maxBlob)
	}
	return b, nil
}

// write makes one write call of the whole value, as the kernel wants it, and creates nothing.
func (e entry) write(name string, b []byte) error {
	f, err := os.OpenFile(filepath.Join(e.dir, name), os.O_WRONLY, 0) // #nosec G304 -- below our own entry
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = f.Write(b)
	if errClose := f.Close(); err == nil {
		err = errClose
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
