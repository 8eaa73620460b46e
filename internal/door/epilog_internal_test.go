package door

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/journal"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// ending is a node at the end of its epilog: its journal, of which another name stays where finish
// removes the first, and what it logs.
type ending struct {
	*node

	base, kept string
	logged     bytes.Buffer
	inPlace    bool // the journal was, when its last line was written
}

func newEnding(t *testing.T) *ending {
	t.Helper()
	e := &ending{base: t.TempDir()}
	log := logrus.New()
	log.SetOutput(&e.logged)
	key := enclave.JobKey{Cluster: "c", Job: 4711}
	e.node = &node{log: logrus.NewEntry(log), job: enclave.Job{JobKey: key}, name: "n1", phases: map[string]int64{"teardown": 75}}
	var err error
	e.journal, err = journal.Create(e.base, journal.Header{JobKey: key, Boot: "b", UID: 2001, User: "alice"}, func() int64 {
		_, missing := os.Lstat(e.first())
		e.inPlace = missing == nil
		return 42
	})
	require.NoError(t, err)
	e.kept = filepath.Join(e.base, "kept")
	require.NoError(t, e.journal.Done("mesh"))
	require.NoError(t, os.Link(e.first(), e.kept))
	return e
}

func (e *ending) first() string { return filepath.Join(e.base, e.job.Directory(), "journal") }

// lines are what the journal held last, whether or not it is still in its place.
func (e *ending) lines(t *testing.T) journal.Record {
	t.Helper()
	f, err := os.Open(e.kept)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	r, err := journal.Parse(f)
	require.NoError(t, err)
	return r
}

// readFrom is what the kernel was asked for, with one kind's result.
func readFrom(sockets enclave.CheckResult) []enclave.Check {
	checks := []enclave.Check{{Name: "closed.boot", Result: enclave.CheckPass}}
	for _, kind := range []string{"links", "rules", "routes", "tables", "sockets", "processes"} {
		checks = append(checks, enclave.Check{Name: "closed." + kind, Result: enclave.CheckPass})
	}
	checks[5].Result = sockets
	return checks
}

func TestTheReadBackIsJournalledBeforeTheJournalGoes(t *testing.T) {
	t.Parallel()
	const words = "in 75 ms; as recorded: boot links rules routes tables sockets processes"
	report := func(e *ending, closed bool, sockets enclave.CheckResult) api.TeardownRequest {
		return api.TeardownRequest{NodeRequest: e.request(), Closed: closed, Checks: readFrom(sockets), PhasesMS: e.phases}
	}
	t.Run("of a node that is closed", func(t *testing.T) {
		t.Parallel()
		e := newEnding(t)
		r := report(e, true, enclave.CheckPass)
		e.logEnd(r)
		require.NoError(t, e.finish(r, e.base))
		_, err := os.Lstat(e.first())
		require.ErrorIs(t, err, fs.ErrNotExist)
		j := e.lines(t)
		require.True(t, j.Closed())
		assert.True(t, e.inPlace, "the line was written before the file went")
		assert.Equal(t, words, j.Lines[len(j.Lines)-1].Detail)
		assert.Contains(t, e.logged.String(), "msg=closed")
		assert.Contains(t, e.logged.String(), `read_back="`+words+`"`)
	})
	t.Run("control: of a node where something is left the journal stays, and says nothing of the kind", func(t *testing.T) {
		t.Parallel()
		e := newEnding(t)
		r := report(e, false, enclave.CheckFail)
		r.Refusal = enclave.Refuse("E245", enclave.FaultNode, "sockets: + udp 7000")
		e.logEnd(r)
		require.NoError(t, e.finish(r, e.base))
		assert.FileExists(t, e.first())
		assert.False(t, e.lines(t).Closed())
		assert.Contains(t, e.logged.String(), "not closed: sockets: + udp 7000")
		assert.NotContains(t, e.logged.String(), "as recorded")
	})
	t.Run("a journal that can't be written any more is told", func(t *testing.T) {
		t.Parallel()
		e := newEnding(t)
		require.NoError(t, e.journal.Leave())
		require.ErrorIs(t, e.finish(report(e, true, enclave.CheckPass), e.base), os.ErrClosed)
	})
}
