package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

const (
	lineLimit = 64 << 10
	sizeLimit = 4 << 20
)

// ErrDamaged is the error of a journal with a line that cannot be read and is not the last one.
var ErrDamaged = errors.New("journal is damaged")

// Record is what a journal holds.
type Record struct {
	Header
	Lines []Line
	Torn  bool // the last line was not written to its end

	size int64 // bytes up to the end of the last whole line
}

// Closed says whether the job has left nothing on the node.
func (r Record) Closed() bool {
	return len(r.Lines) > 0 && r.Lines[len(r.Lines)-1].Act == ActClosed
}

// Open lists the stages that may have something on the node, in the order in which they were
// begun, each with the line of its last intent. Taking down goes through it backwards.
func (r Record) Open() []Line {
	var open []Line
	for _, l := range r.Lines {
		i := slices.IndexFunc(open, func(o Line) bool { return o.Stage == l.Stage })
		switch {
		case l.Act == ActIntent && i < 0:
			open = append(open, l)
		case l.Act == ActIntent:
			open[i] = l
		case l.Act == ActUndone && i >= 0:
			open = slices.Delete(open, i, i+1)
		}
	}
	return open
}

// Load reads a journal. The record holds what could be read even when there is an error.
func Load(base string, key enclave.JobKey) (Record, error) {
	root, err := os.OpenRoot(base)
	if err != nil {
		return Record{}, fmt.Errorf("read journal: %w", err)
	}
	defer func() { _ = root.Close() }()
	f, err := root.Open(key.Directory() + "/" + file)
	if err != nil {
		return Record{}, fmt.Errorf("read journal: %w", err)
	}
	defer func() { _ = f.Close() }()
	r, err := parse(f, key)
	if err != nil {
		return r, fmt.Errorf("read journal %s: %w", key.Directory(), err)
	}
	return r, nil
}

// List names the jobs that have a directory, which is every job that a prolog has begun and
// that has not been removed. A missing base directory is an empty list.
func List(base, cluster string) ([]enclave.JobKey, error) {
	entries, err := os.ReadDir(base)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list journals: %w", err)
	}
	var keys []enclave.JobKey
	for _, e := range entries {
		if key, err := enclave.ParseDirectory(cluster, e.Name()); err == nil && e.IsDir() {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// parse reads a journal and holds it against the job whose directory it is in: a journal that
// names another job is damaged.
func parse(r io.Reader, key enclave.JobKey) (Record, error) {
	record, err := Parse(r)
	empty := record.Version == ""
	if err == nil && !empty && (record.Job != key.Job || record.Restart != key.Restart) {
		err = fmt.Errorf("%w: it names job %s", ErrDamaged, record.Directory())
	}
	if empty {
		record.JobKey = key
	}
	return record, err
}

// Parse reads the text of a journal. A journal whose header is torn is an empty record that is
// torn: nothing was begun. The record holds the readable lines even when there is an error.
func Parse(r io.Reader) (Record, error) {
	b, err := io.ReadAll(io.LimitReader(r, sizeLimit+1))
	if err != nil {
		return Record{}, err
	}
	if len(b) > sizeLimit {
		return Record{}, fmt.Errorf("%w: more than %d bytes", ErrDamaged, sizeLimit)
	}
	var record Record
	end := bytes.LastIndexByte(b, '\n') + 1
	record.Torn, record.size = end != len(b), int64(end)
	if end == 0 {
		record.Torn = true
		return record, nil
	}
	head, rest, _ := bytes.Cut(b[:end], []byte("\n"))
	if err = decode(head, &record.Header); err == nil {
		err = record.check()
	}
	if err != nil {
		record.Header = Header{}
		return record, fmt.Errorf("%w: header: %w", ErrDamaged, err)
	}
	for text := range bytes.Lines(rest) {
		var l Line
		n := uint64(len(record.Lines)) + 1
		if err = decode(text, &l); err == nil {
			err = l.check(n)
		}
		if err == nil && record.Closed() {
			err = errors.New("it follows the closing line")
		}
		if err != nil {
			return record, fmt.Errorf("%w: line %d: %w", ErrDamaged, n, err)
		}
		record.Lines = append(record.Lines, l)
	}
	return record, nil
}

func decode(b []byte, v any) error {
	if len(b) > lineLimit {
		return fmt.Errorf("%d bytes, at most %d are allowed", len(b), lineLimit)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}

func (h Header) check() error {
	switch {
	case h.Version != Version:
		return fmt.Errorf("version %q, want %q", h.Version, Version)
	case h.Job == 0:
		return errors.New("job 0")
	case h.Boot == "":
		return errors.New("no boot id")
	}
	return nil
}

func (l Line) check(seq uint64) error {
	switch {
	case l.Seq != seq:
		return fmt.Errorf("sequence number %d, want %d", l.Seq, seq)
	case l.Stage == "":
		return errors.New("no stage")
	}
	switch l.Act {
	case ActIntent, ActDone, ActUndone, ActClosed:
		return nil
	}
	return fmt.Errorf("unknown act %q", l.Act)
}
