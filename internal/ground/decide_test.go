package ground_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ground"
	"github.com/slurm-enclave/slurm-enclave/internal/journal"
)

func key(job, restart uint32) enclave.JobKey {
	return enclave.JobKey{Cluster: "c", Job: job, Restart: restart}
}

func open(job, restart uint32, acts ...journal.Act) ground.Open {
	r := journal.Record{Header: journal.Header{JobKey: key(job, restart), UID: 2001}}
	for _, act := range acts {
		r.Lines = append(r.Lines, journal.Line{Stage: "mesh", Act: act})
	}
	return ground.Open{Record: r}
}

func TestDecide(t *testing.T) {
	facts := func(journals ...ground.Open) ground.Facts { return ground.Facts{Job: key(7, 1), Journals: journals} }

	t.Run("an empty node is fit", func(t *testing.T) {
		d, refusal := ground.Decide(facts())
		require.Nil(t, refusal)
		assert.Zero(t, d)
	})
	t.Run("a dead job is cleaned first", func(t *testing.T) {
		d, refusal := ground.Decide(facts(open(5, 0, journal.ActIntent)))
		require.Nil(t, refusal)
		require.Len(t, d.Clean, 1)
		assert.Equal(t, key(5, 0), d.Clean[0].JobKey)
	})
	t.Run("a suspended job makes this one wait, and drains nobody", func(t *testing.T) {
		f := facts(open(5, 0, journal.ActIntent), open(6, 0, journal.ActIntent))
		f.Live = []uint32{6}
		d, refusal := ground.Decide(f)
		require.NotNil(t, refusal)
		assert.Equal(t, ground.CodeSuspended, refusal.Code)
		assert.Equal(t, enclave.FaultService, refusal.Fault)
		assert.Zero(t, d, "nothing is cleaned either")
	})
	t.Run("an earlier start of the same job is dead", func(t *testing.T) {
		f := facts(open(7, 0, journal.ActIntent), open(7, 1, journal.ActIntent))
		f.Live = []uint32{7}
		d, refusal := ground.Decide(f)
		require.Nil(t, refusal)
		assert.Len(t, d.Clean, 2)
	})
	t.Run("a closed journal has nothing to clean, alive or not", func(t *testing.T) {
		f := facts(open(5, 0, journal.ActIntent, journal.ActUndone, journal.ActClosed))
		f.Live = []uint32{5}
		d, refusal := ground.Decide(f)
		require.Nil(t, refusal)
		assert.Zero(t, d)
	})
	t.Run("a damaged journal is cleaned, even if its last readable line closes it", func(t *testing.T) {
		o := open(5, 0, journal.ActClosed)
		o.Err = journal.ErrDamaged
		d, refusal := ground.Decide(facts(o))
		require.Nil(t, refusal)
		assert.Len(t, d.Clean, 1)
	})
	t.Run("each foreign user's processes end", func(t *testing.T) {
		f := facts()
		f.Foreign = []ground.Process{{PID: 1, UID: 2002}, {PID: 2, UID: 2001}, {PID: 3, UID: 2002}}
		d, refusal := ground.Decide(f)
		require.Nil(t, refusal)
		assert.Equal(t, []enclave.UIDRange{{Start: 2001, Count: 1}, {Start: 2002, Count: 1}}, d.Kill)
	})
}

func TestAfterwards(t *testing.T) {
	assert.Nil(t, ground.StillForeign(nil))
	r := ground.StillForeign([]ground.Process{{PID: 9, UID: 2001, Title: "a\nb"}})
	require.NotNil(t, r)
	assert.Equal(t, ground.CodeForeign, r.Code)
	assert.NotContains(t, r.Error(), "\n", "a title that a user chose is not in a drain reason")

	assert.Nil(t, ground.Uncleaned(key(5, 0), nil))
	r = ground.Uncleaned(key(5, 0), &enclave.Refusal{Code: "E311", Reason: "busy", Fix: "end pid 9"})
	require.NotNil(t, r)
	assert.Equal(t, ground.CodeUnclean, r.Code)
	assert.Equal(t, "end pid 9", r.Fix)
	assert.NotEmpty(t, ground.Uncleaned(key(5, 0), errors.New("x")).Fix)
}

func TestKeptJobs(t *testing.T) {
	assert.Equal(t, []uint32{7, 4711}, ground.KeptJobs([]ground.Process{
		{UID: 0, Title: "/usr/libexec/slurm-enclave/enclave-keeper 4711.0"},
		{UID: 0, Title: "/usr/libexec/slurm-enclave/enclave-keeper 7.3"},
		{UID: 2001, Title: "/usr/libexec/slurm-enclave/enclave-keeper 8.0"},
		{UID: 0, Title: "grep /x/enclave-keeper 9.0"},
		{UID: 0, Title: "/usr/libexec/slurm-enclave/enclave-keeper 10"},
		{UID: 0, Title: "/usr/libexec/slurm-enclave/enclave-keeper 0.0"},
	}))
}

func TestLiveJobs(t *testing.T) {
	live := ground.LiveJobs([]ground.Process{
		{UID: 0, Title: "slurmstepd: [4711.extern]"},
		{UID: 0, Title: "slurmstepd: [4711.0]"},
		{UID: 0, Title: "slurmstepd: [12+1.batch]"},
		{UID: 0, Title: "slurmstepd: [13.4294967290] "},
		{UID: 2001, Title: "slurmstepd: [99.batch]"},
		{UID: 0, Title: "grep slurmstepd: [98.batch]"},
		{UID: 0, Title: "slurmstepd: [99999999999.batch]"},
		{UID: 0, Title: "slurmstepd: [0.batch]"},
		{UID: 0, Title: "slurmstepd infinity"},
	})
	assert.Equal(t, []uint32{12, 13, 4711}, live)
}

func TestJournals(t *testing.T) {
	base := t.TempDir()
	j, err := journal.Create(base, journal.Header{JobKey: key(5, 0), UID: 2001, Boot: "b"}, func() int64 { return 0 })
	require.NoError(t, err)
	require.NoError(t, j.Leave())
	require.NoError(t, os.MkdirAll(filepath.Join(base, "6.0"), 0o700))
	require.NoError(t, os.MkdirAll(filepath.Join(base, "7.0"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(base, "7.0", "journal"), []byte("x\n"), 0o600))
	open, err := ground.Journals(base, "c")
	require.NoError(t, err)
	require.Len(t, open, 3)
	assert.Equal(t, uint32(2001), open[0].Record.UID)
	require.NoError(t, open[0].Err)
	assert.Equal(t, key(6, 0), open[1].Record.JobKey, "a directory without a journal is cleaned like a journal")
	require.Error(t, open[1].Err)
	assert.Equal(t, key(7, 0), open[2].Record.JobKey)
	require.ErrorIs(t, open[2].Err, journal.ErrDamaged)
}

func TestRelease(t *testing.T) {
	p := ground.Plugin{Path: so}
	assert.Nil(t, ground.SameRelease(p, "1.2.3", "1.2.3"))
	for _, pair := range [][2]string{{"1.2.3", "1.2.4"}, {"", ""}, {"", "1"}} {
		r := ground.SameRelease(p, pair[0], pair[1])
		require.NotNil(t, r)
		assert.Equal(t, ground.CodeRelease, r.Code)
	}
	t.Run("it stands in a section of the plugin", func(t *testing.T) {
		cc, err := exec.LookPath("cc")
		if err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal("a C compiler is missing")
			}
			t.Skip("a C compiler is missing")
		}
		dir := t.TempDir()
		for name, text := range map[string]string{
			"ours":  `static const char release[] __attribute__((used, section(".enclave.release"))) = "1.2.3";`,
			"other": `int x;`,
		} {
			source := filepath.Join(dir, name+".c")
			require.NoError(t, os.WriteFile(source, []byte(text), 0o600))
			out, errMake := exec.CommandContext(t.Context(), cc, "-shared", "-fPIC", "-o", filepath.Join(dir, name), source).CombinedOutput()
			require.NoError(t, errMake, "%s", out)
		}
		b, err := os.ReadFile(filepath.Join(dir, "ours"))
		require.NoError(t, err)
		release, err := ground.ReadRelease(bytes.NewReader(b))
		require.NoError(t, err)
		assert.Equal(t, "1.2.3", release)
		b, err = os.ReadFile(filepath.Join(dir, "other"))
		require.NoError(t, err)
		_, err = ground.ReadRelease(bytes.NewReader(b))
		require.ErrorContains(t, err, "not a plugin of ours")
		_, err = ground.ReadRelease(bytes.NewReader([]byte("#!/bin/sh")))
		require.Error(t, err)
	})
}
