package site_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/site"
	"github.com/slurm-enclave/slurm-enclave/internal/slurm"
)

func TestJobState(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	st, err := b.JobState(t.Context(), 7)
	require.NoError(t, err)
	assert.Equal(t, enclave.JobState{Alive: true, State: "RUNNING", AllocNode: "login", Batch: true, TimeLimit: 3600}, st)

	for name, c := range map[string]struct {
		job  slurm.Job
		want string
	}{
		"a gate that refused is a failure":                {slurm.Job{State: "COMPLETING", ExitCode: 256}, "FAILED"},
		"a cancelled job that is completing is cancelled": {slurm.Job{State: "COMPLETING", ExitCode: 15}, "CANCELLED"},
		"a job back in the queue is not alive":            {slurm.Job{State: "PENDING", Restarts: 1}, "PENDING"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			*b.slurm.jobs[7] = c.job
			st, err := b.JobState(t.Context(), 7)
			require.NoError(t, err)
			assert.Equal(t, c.want, st.State)
			assert.False(t, st.Alive)
		})
	}
	t.Run("a job that nobody knows is not alive", func(t *testing.T) {
		t.Parallel()
		st, err := newBench(t).JobState(t.Context(), 8)
		require.NoError(t, err)
		assert.Equal(t, enclave.JobState{}, st)
	})
	t.Run("a controller that is away is an error, not a dead job", func(t *testing.T) {
		t.Parallel()
		b := newBench(t)
		b.slurm.away = true
		_, err := b.JobState(t.Context(), 7)
		require.Error(t, err)
	})
}

func TestDrains(t *testing.T) {
	t.Parallel()
	t.Run("a node is drained and resumed by the same code", func(t *testing.T) {
		t.Parallel()
		b := newBench(t)
		require.NoError(t, b.Drain(t.Context(), "n1", "enclave:E220 report does not verify"))
		assert.Contains(t, b.slurm.String(), "node n1 idle+drain <enclave:E220 report does not verify>\n")
		require.NoError(t, b.Resume(t.Context(), "n1", "enclave:E22", b.now))
		require.NoError(t, b.Resume(t.Context(), "n1", "enclave:E221", b.now))
		assert.Contains(t, b.slurm.String(), "drain", "another code does not resume it")
		require.NoError(t, b.Resume(t.Context(), "n1", "enclave:E220", b.now.Add(-time.Hour)))
		assert.Contains(t, b.slurm.String(), "node n1 idle <>\n")
		assert.Zero(t, b.waiting(t))
	})
	t.Run("an admin's drain is neither overwritten nor resumed", func(t *testing.T) {
		t.Parallel()
		b := newBench(t)
		b.slurm.nodes["n1"] = &slurm.Node{Name: "n1", State: []string{"idle", "drain"}, Reason: "fan broken, ask bob"}
		require.NoError(t, b.Drain(t.Context(), "n1", "enclave:E220 x"))
		require.NoError(t, b.Resume(t.Context(), "n1", "enclave:E220", b.now))
		assert.Contains(t, b.slurm.String(), "node n1 idle+drain <fan broken, ask bob>\n")
	})
	t.Run("our first reason stays, it is the first cause", func(t *testing.T) {
		t.Parallel()
		b := newBench(t)
		require.NoError(t, b.Drain(t.Context(), "n1", "enclave:E220 first"))
		require.NoError(t, b.Drain(t.Context(), "n1", "enclave:E221 second"))
		assert.Contains(t, b.slurm.String(), "<enclave:E220 first>")
	})
	for _, reason := range []string{"", "E220 x", "enclave:", "enclave:E220", "enclave: E220 x", "enclave:E22 x", "Prolog error"} {
		t.Run("a reason without a code is refused: "+reason, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			require.Error(t, b.Drain(t.Context(), "n1", reason))
			assert.Zero(t, b.slurm.calls)
		})
	}
	t.Run("a prefix that is not ours resumes nothing", func(t *testing.T) {
		t.Parallel()
		b := newBench(t)
		b.slurm.nodes["n1"] = &slurm.Node{Name: "n1", State: []string{"drain"}, Reason: "fan"}
		require.Error(t, b.Resume(t.Context(), "n1", "", b.now))
		require.Error(t, b.Resume(t.Context(), "n1", "fan", b.now))
		assert.Contains(t, b.slurm.String(), "drain")
	})
	t.Run("a drain that Slurm did not hear is kept and done later", func(t *testing.T) {
		t.Parallel()
		b := newBench(t)
		b.slurm.away = true
		require.ErrorContains(t, b.Drain(t.Context(), "n1", "enclave:E220 x"), "E524")
		b.slurm.away = false
		require.NoError(t, b.Work(t.Context()))
		assert.NotContains(t, b.slurm.String(), "drain", "not due yet")
		b.now = b.now.Add(time.Minute)
		require.NoError(t, b.Work(t.Context()))
		assert.Contains(t, b.slurm.String(), "node n1 idle+drain <enclave:E220 x>")
		assert.Zero(t, b.waiting(t))
	})
	t.Run("an errand that is put off is done in time, though the clock was put back by an hour", func(t *testing.T) {
		t.Parallel()
		b := newBench(t)
		b.slurm.away = true
		require.ErrorContains(t, b.Drain(t.Context(), "n1", "enclave:E220 x"), "E524")
		b.slurm.away = false
		b.now = b.now.Add(-time.Hour)
		require.NoError(t, b.Work(t.Context()))
		assert.Contains(t, b.slurm.String(), "node n1 idle+drain <enclave:E220 x>")
		assert.Zero(t, b.waiting(t))
	})
	t.Run("a drain that can't be written down, for the disk is full, is done at once", func(t *testing.T) {
		t.Parallel()
		b := newBench(t)
		s := site.New(b.slurm, fullSpool{b.spool}, func() time.Time { return b.now })
		require.NoError(t, s.Drain(t.Context(), "n1", "enclave:E220 x"))
		assert.Contains(t, b.slurm.String(), "node n1 idle+drain <enclave:E220 x>")
		b.slurm.away = true
		err := s.Resume(t.Context(), "n1", "enclave:E220", b.now)
		require.ErrorContains(t, err, "E524")
		require.ErrorContains(t, err, "disk is full")
	})
	t.Run("a node that Slurm does not know is given up", func(t *testing.T) {
		t.Parallel()
		b := newBench(t)
		require.Error(t, b.Drain(t.Context(), "n9", "enclave:E220 x"))
		b.now = b.now.Add(time.Minute)
		require.ErrorContains(t, b.Work(t.Context()), "given up")
		assert.Zero(t, b.waiting(t))
	})
}

func TestRequeue(t *testing.T) {
	t.Parallel()
	t.Run("a running job goes back into the queue, once", func(t *testing.T) {
		t.Parallel()
		b := newBench(t)
		require.NoError(t, b.Requeue(t.Context(), key(0), "enclave:E501 x"))
		require.NoError(t, b.Requeue(t.Context(), key(0), "enclave:E501 x"))
		b.slurm.jobs[7].State = "RUNNING" // the next start
		require.NoError(t, b.Requeue(t.Context(), key(0), "enclave:E501 x"))
		assert.Contains(t, b.slurm.String(), "job 7 RUNNING restarts 1")
	})
	t.Run("a job whose tasks failed at the gate goes back too", func(t *testing.T) {
		t.Parallel()
		b := newBench(t)
		b.slurm.jobs[7].State, b.slurm.jobs[7].ExitCode = "COMPLETING", 256
		require.NoError(t, b.Requeue(t.Context(), key(0), "x"))
		assert.Contains(t, b.slurm.String(), "job 7 PENDING restarts 1")
	})
	for _, j := range []slurm.Job{
		{State: "CANCELLED"},
		{State: "COMPLETING", ExitCode: 15},
		{State: "COMPLETING"},
		{State: "TIMEOUT", ExitCode: 256},
		{State: "COMPLETED"},
	} {
		t.Run("what its owner ended is not revived: "+j.State, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			j.Batch, j.Requeue = true, true
			*b.slurm.jobs[7] = j
			before := b.slurm.String()
			require.NoError(t, b.Requeue(t.Context(), key(0), "x"))
			assert.Equal(t, before, b.slurm.String())
		})
	}
	t.Run("an interactive job is cancelled and the answer says so", func(t *testing.T) {
		t.Parallel()
		b := newBench(t)
		b.slurm.jobs[7].Batch = false
		r, ok := enclave.AsRefusal(b.Requeue(t.Context(), key(0), "the verifier is away"))
		require.True(t, ok)
		assert.Equal(t, site.CodeInteractive, r.Code)
		assert.Contains(t, b.slurm.String(), "CANCELLED")
		assert.Zero(t, b.waiting(t))
	})
	t.Run("--no-requeue is kept", func(t *testing.T) {
		t.Parallel()
		b := newBench(t)
		b.slurm.jobs[7].Requeue = false
		r, ok := enclave.AsRefusal(b.Requeue(t.Context(), key(0), "x"))
		require.True(t, ok)
		assert.Equal(t, site.CodeNoRequeue, r.Code)
	})
	t.Run("a job that Slurm forgot is no error", func(t *testing.T) {
		t.Parallel()
		b := newBench(t)
		delete(b.slurm.jobs, 7)
		require.NoError(t, b.Requeue(t.Context(), key(0), "x"))
	})
}

const doc = `{"verdict":"refused","nodes":3,"restart":0,"policy":"0123456789abcdef","code":"E220","reason":"n2: it's \"bad\""}`

const token = `enclave={"v":"refused","n":3,"p":"0123456789ab","r":"E220","t":"n2: it s  bad "}`

func TestRecordVerdict(t *testing.T) {
	t.Parallel()
	t.Run("while the job lives, beside the text of others", func(t *testing.T) {
		t.Parallel()
		b := newBench(t)
		b.slurm.texts[7] = "JS1:H4sIAbc=="
		require.NoError(t, b.RecordVerdict(t.Context(), key(0), []byte(doc)))
		assert.Equal(t, "JS1:H4sIAbc== "+token, b.slurm.texts[7])
		require.NoError(t, b.RecordVerdict(t.Context(), key(0), []byte(strings.Replace(doc, "refused", "incomplete", 1))))
		assert.Equal(t, "JS1:H4sIAbc== "+strings.Replace(token, "refused", "incomplete", 1), b.slurm.texts[7])
		assert.Zero(t, b.waiting(t))
	})
	t.Run("after the end, in the spelling that sacctmgr keeps", func(t *testing.T) {
		t.Parallel()
		b := newBench(t)
		b.slurm.jobs[7].State = "FAILED"
		b.slurm.texts[7] = "low=1 " + strings.Replace(token, "refused", "incomplete", 1)
		require.NoError(t, b.RecordVerdict(t.Context(), key(0), []byte(doc)))
		assert.Equal(t, "low=1 "+slurm.Stored(token), b.slurm.texts[7])
		a, ok := site.ParseAdminComment(b.slurm.texts[7])
		require.True(t, ok)
		assert.Equal(t, site.Accounting{Verdict: "refused", Nodes: 3, Policy: "0123456789ab", Code: "E220", Reason: "n2: it s  bad "}, a)
	})
	t.Run("after the end the text of others is rather left alone than spoilt", func(t *testing.T) {
		t.Parallel()
		b := newBench(t)
		b.slurm.jobs[7].State = "FAILED"
		b.slurm.texts[7] = "JS1:H4sIAbc=="
		r, ok := enclave.AsRefusal(b.RecordVerdict(t.Context(), key(0), []byte(doc)))
		require.True(t, ok)
		assert.Equal(t, site.CodeAccounting, r.Code)
		assert.Equal(t, "JS1:H4sIAbc==", b.slurm.texts[7])
		assert.Zero(t, b.waiting(t), "no second attempt can mend it")
	})
	t.Run("while it is completing it waits", func(t *testing.T) {
		t.Parallel()
		b := newBench(t)
		b.slurm.jobs[7].State = "COMPLETING"
		require.ErrorContains(t, b.RecordVerdict(t.Context(), key(0), []byte(doc)), "E524")
		b.slurm.jobs[7].State = "FAILED"
		b.now = b.now.Add(time.Minute)
		require.NoError(t, b.Work(t.Context()))
		assert.Equal(t, slurm.Stored(token), b.slurm.texts[7])
	})
	t.Run("a verdict is never written into the record of the next start", func(t *testing.T) {
		t.Parallel()
		b := newBench(t)
		b.slurm.away = true
		require.Error(t, b.RecordVerdict(t.Context(), key(0), []byte(doc)))
		b.slurm.away, b.slurm.jobs[7].Restarts = false, 1
		b.now = b.now.Add(time.Minute)
		require.ErrorContains(t, b.Work(t.Context()), "start 1 has begun")
		assert.Empty(t, b.slurm.texts[7])
		assert.Zero(t, b.waiting(t))
	})
	t.Run("what is not read back is tried again, with growing pauses, and given up at last", func(t *testing.T) {
		t.Parallel()
		b := newBench(t)
		b.slurm.forgets = true
		require.ErrorContains(t, b.RecordVerdict(t.Context(), key(0), []byte(doc)), "read back")
		b.now = b.now.Add(6 * time.Second)
		require.Error(t, b.Work(t.Context()))
		b.now = b.now.Add(6 * time.Second)
		require.NoError(t, b.Work(t.Context()), "not due yet")
		for range 100 {
			b.now = b.now.Add(time.Hour)
			_ = b.Work(t.Context())
		}
		assert.Zero(t, b.waiting(t))
	})
	for name, doc := range map[string]string{
		"nothing": "", "no verdict": `{"nodes":1}`, "a verdict of its own": `{"verdict":"safe"}`, "an unknown key": `{"verdict":"refused","x":1}`,
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			require.Error(t, b.RecordVerdict(t.Context(), key(0), []byte(doc)))
			assert.Zero(t, b.slurm.calls)
			assert.Zero(t, b.waiting(t))
		})
	}
}

func TestAnErrandThatNobodyUnderstandsIsDropped(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, kind := range []string{"dance", "verdict"} {
		_, err := b.spool.AddErrand(t.Context(), kind, []byte("{}"), b.now)
		require.NoError(t, err)
	}
	_, err := b.spool.AddErrand(t.Context(), "drain", []byte("no json"), b.now)
	require.NoError(t, err)
	require.Error(t, b.Work(t.Context()))
	assert.Zero(t, b.waiting(t))
	assert.Zero(t, b.slurm.calls)
}
