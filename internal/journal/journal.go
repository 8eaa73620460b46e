// Package journal keeps one append-only list of intents per job and node.
//
// Every act is written and synced before it is done, so that the epilog can undo what a killed
// prolog began, from the journal alone. A journal is a file named "journal" in the directory
// JOB.RESTART below a root-only directory on a tmpfs: it does not outlive a boot, and neither do
// the things it speaks of. It holds no secret and undoes nothing itself.
package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Act says how far a stage has come.
type Act string

// Intent precedes the act, done and undone follow it. Closed ends the journal: nothing is left
// of the job on this node, only the report may not have been delivered.
const (
	ActIntent Act = "intent"
	ActDone   Act = "done"
	ActUndone Act = "undone"
	ActClosed Act = "closed"
)

// Header is the first line: whose journal it is and in which boot it was written.
type Header struct {
	Version string `json:"version"`
	enclave.JobKey
	UID  uint32 `json:"uid"`
	User string `json:"user,omitempty"`
	Boot string `json:"boot"`
}

// Version is the only version of the format.
const Version = "slurm-enclave-journal/1"

// Line is one act of one stage.
type Line struct {
	Seq    uint64 `json:"seq"`         // 1, 2, 3, ...
	Time   int64  `json:"boottime_ns"` // CLOCK_BOOTTIME
	Stage  string `json:"stage"`
	Act    Act    `json:"act"`
	Detail string `json:"detail,omitempty"` // what taking the stage down needs to know
}

// Clock reads CLOCK_BOOTTIME in nanoseconds.
type Clock func() int64

const file = "journal"

// Journal is an open journal. It is safe for concurrent use within one process.
type Journal struct {
	mu    sync.Mutex
	f     *os.File
	clock Clock
	seq   uint64
}

// Create begins the journal of a job. It fails with fs.ErrExist when there is one already: the
// prolog runs for the second time, and what the first has begun is to be taken down first.
func Create(base string, h Header, clock Clock) (*Journal, error) {
	h.Version = Version
	if err := h.check(); err != nil {
		return nil, fmt.Errorf("create journal: %w", err)
	}
	root, err := os.OpenRoot(base)
	if err != nil {
		return nil, fmt.Errorf("create journal: %w", err)
	}
	defer func() { _ = root.Close() }()
	dir := h.Directory()
	if err = root.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("create journal: %w", err)
	}
	f, err := root.OpenFile(dir+"/"+file, os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create journal: %w", err)
	}
	j := &Journal{f: f, clock: clock}
	if err := j.write(h); err != nil {
		return nil, errors.Join(fmt.Errorf("create journal: %w", err), f.Close(), Remove(base, h.JobKey))
	}
	return j, nil
}

// Open opens a journal to append to it, and gives what it holds. A torn last line is cut off: its
// act was not begun, for acts begin after their line is synced. The error is fs.ErrNotExist when
// there is no journal and ErrDamaged when a line cannot be read; nothing is appended to such a one,
// and the epilog then takes down everything that may be there.
func Open(base string, key enclave.JobKey, clock Clock) (*Journal, Record, error) {
	root, err := os.OpenRoot(base)
	if err != nil {
		return nil, Record{}, fmt.Errorf("open journal: %w", err)
	}
	defer func() { _ = root.Close() }()
	f, err := root.OpenFile(key.Directory()+"/"+file, os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return nil, Record{}, fmt.Errorf("open journal: %w", err)
	}
	r, err := parse(f, key)
	if err == nil && r.Torn {
		err = f.Truncate(r.size)
	}
	if err != nil {
		return nil, r, errors.Join(fmt.Errorf("open journal %s: %w", key.Directory(), err), f.Close())
	}
	return &Journal{f: f, clock: clock, seq: uint64(len(r.Lines))}, r, nil
}

// Intent says that a stage is about to act. It returns when the line is on the medium.
func (j *Journal) Intent(stage, detail string) error { return j.add(stage, ActIntent, detail) }

// Done says that a stage is up.
func (j *Journal) Done(stage string) error { return j.add(stage, ActDone, "") }

// Undone says that nothing is left of a stage.
func (j *Journal) Undone(stage string) error { return j.add(stage, ActUndone, "") }

// Close ends the journal: the node equals its closed state again. The file stays, for the report
// may still have to be delivered; Remove deletes it after that.
func (j *Journal) Close(detail string) error {
	return errors.Join(j.add("journal", ActClosed, detail), j.Leave())
}

// Leave closes the file only: the job goes on.
func (j *Journal) Leave() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.f.Close(); err != nil {
		return fmt.Errorf("close journal: %w", err)
	}
	return nil
}

func (j *Journal) add(stage string, act Act, detail string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	l := Line{Seq: j.seq + 1, Time: j.clock(), Stage: stage, Act: act, Detail: detail}
	if err := l.check(l.Seq); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	if err := j.write(l); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	j.seq++
	return nil
}

// write appends one line with one write, so that a kill tears at most the last line. What can't be
// written whole is not there.
func (j *Journal) write(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) >= lineLimit || bytes.IndexByte(b, '\n') >= 0 {
		return fmt.Errorf("a line of %d bytes, at most %d are allowed", len(b), lineLimit)
	}
	before, err := j.f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if _, err = j.f.Write(append(b, '\n')); err != nil {
		// A full file system takes a part of the line. When there is space again the next line would follow
		// it, and the journal be damaged.
		return errors.Join(err, j.f.Truncate(before))
	}
	return j.f.Sync()
}

// Remove deletes the journal of a job after its report has been delivered. It deletes the file
// and its directory by name and nothing else; a directory that holds more stays and is an error.
func Remove(base string, key enclave.JobKey) error {
	root, err := os.OpenRoot(base)
	if err != nil {
		return fmt.Errorf("remove journal: %w", err)
	}
	defer func() { _ = root.Close() }()
	for _, name := range []string{key.Directory() + "/" + file, key.Directory()} {
		if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove journal: %w", err)
		}
	}
	return nil
}
