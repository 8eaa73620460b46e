package attest_test

import (
	"context"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/attest"
	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
)

// lab is a mounted configfs-tsm and what judges its reports.
type lab struct {
	root, faults string
	hierarchy    *attesttest.Hierarchy
	attester     *attest.Attester
}

func newLab(t *testing.T) *lab {
	t.Helper()
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil || os.Getuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("no /dev/fuse, or not root")
		}
		t.Skip("no /dev/fuse, or not root: configfs-tsm can't be served")
	} else {
		require.NoError(t, f.Close())
	}
	h, err := attesttest.NewHierarchy(t.TempDir(), attesttest.SmallKeys())
	require.NoError(t, err)
	l := &lab{root: t.TempDir(), faults: filepath.Join(t.TempDir(), "faults.json"), hierarchy: h}
	w, err := attesttest.NewFirmware(h, "n1", l.faults)
	require.NoError(t, err)
	s, err := attesttest.Mount(l.root, w)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.Eventually(t, func() bool { return s.Unmount() == nil }, 10*time.Second, 20*time.Millisecond)
	})
	l.attester = attest.New(l.root)
	return l
}

func (l *lab) setFaults(t *testing.T, json string) {
	t.Helper()
	require.NoError(t, os.WriteFile(l.faults, []byte(json), 0o600))
}

func (l *lab) verify(t *testing.T, ev enclave.Evidence) snp.Result {
	t.Helper()
	chain, err := snp.ParseCertificates(ev.Certificates)
	if err != nil {
		require.ErrorIs(t, err, snp.ErrNoCertificate)
	}
	roots, err := snp.TestRoots(l.hierarchy.Roots())
	require.NoError(t, err)
	return snp.Verify(ev.Report, chain, snp.Options{Roots: roots, At: time.Now()})
}

// entries are the report directories that are left: none, whatever happened.
func (l *lab) entries(t *testing.T) []string {
	t.Helper()
	dirs, err := os.ReadDir(l.root)
	require.NoError(t, err)
	names := []string{}
	for _, d := range dirs {
		names = append(names, d.Name())
	}
	return names
}

func TestReportAnswersTheQuestion(t *testing.T) {
	l := newLab(t)
	question := [64]byte{0: 1, 63: 2}
	ev, err := l.attester.Evidence(t.Context(), question)
	require.NoError(t, err)
	assert.Equal(t, "sev_guest", ev.Provider)
	assert.Len(t, ev.Report, 1184)
	res := l.verify(t, ev)
	assert.True(t, res.Genuine, "%v", res.Checks)
	assert.True(t, res.Simulated)
	assert.Equal(t, question, res.ReportData)
	assert.Equal(t, attesttest.ChipID("n1"), res.ChipID)
	assert.Equal(t, attesttest.CurrentTCB(), res.ReportedTCB)
	assert.Equal(t, attesttest.LabMeasurement(), res.Measurement)
	assert.Empty(t, l.entries(t))
}

func TestThirtyTwoReportsAtOnce(t *testing.T) {
	l := newLab(t)
	var wg sync.WaitGroup
	errs := make([]error, 32)
	got := make([]enclave.Evidence, 32)
	for i := range got {
		wg.Go(func() { got[i], errs[i] = l.attester.Evidence(t.Context(), [64]byte{byte(i), 7}) })
	}
	wg.Wait()
	for i := range got {
		require.NoError(t, errs[i])
		res := l.verify(t, got[i])
		assert.True(t, res.Genuine)
		assert.Equal(t, [64]byte{byte(i), 7}, res.ReportData, "nobody got another's answer")
	}
	assert.Empty(t, l.entries(t))
}

func TestFaultsReachTheVerifier(t *testing.T) {
	l := newLab(t)
	question := [64]byte{9}
	_, err := l.attester.Evidence(t.Context(), [64]byte{1})
	require.NoError(t, err)
	for name, tt := range map[string]struct {
		json  string
		check func(t *testing.T, res snp.Result)
	}{
		"no fault": {"", func(t *testing.T, res snp.Result) { assert.True(t, res.Genuine) }},
		"a signature of another key": {`{"wrong_key":true}`, func(t *testing.T, res snp.Result) {
			assert.False(t, res.Genuine)
			assert.Equal(t, enclave.CheckFail, res.Checks[10].Result)
		}},
		"a debug policy": {`{"debug_policy":true}`, func(t *testing.T, res snp.Result) {
			assert.True(t, res.Genuine)
			assert.True(t, res.Debug)
		}},
		"old firmware": {`{"old_tcb":true}`, func(t *testing.T, res snp.Result) {
			assert.True(t, res.Genuine)
			assert.Equal(t, attesttest.OldTCB(), res.ReportedTCB)
		}},
		"a replayed report": {`{"replay":true}`, func(t *testing.T, res snp.Result) {
			assert.True(t, res.Genuine)
			assert.NotEqual(t, question, res.ReportData)
		}},
		"another node's chip": {`{"other_chip":"n2"}`, func(t *testing.T, res snp.Result) {
			assert.True(t, res.Genuine)
			assert.Equal(t, attesttest.ChipID("n2"), res.ChipID)
		}},
		"another measurement": {`{"wrong_measurement":true}`, func(t *testing.T, res snp.Result) {
			assert.True(t, res.Genuine)
			assert.NotEqual(t, attesttest.LabMeasurement(), res.Measurement)
		}},
		"no certificates": {`{"no_certificates":true}`, func(t *testing.T, res snp.Result) {
			assert.True(t, res.NoCertificate)
		}},
		"busy firmware": {`{"busy":3}`, func(t *testing.T, res snp.Result) { assert.True(t, res.Genuine) }},
	} {
		t.Run(name, func(t *testing.T) {
			l.setFaults(t, "")
			_, err := l.attester.Evidence(t.Context(), [64]byte{1}) // the question before, for replays
			require.NoError(t, err)
			l.setFaults(t, tt.json)
			ev, err := l.attester.Evidence(t.Context(), question)
			require.NoError(t, err)
			tt.check(t, l.verify(t, ev))
			assert.Empty(t, l.entries(t))
		})
	}
}

func TestRefusalsNameTheCause(t *testing.T) {
	l := newLab(t)
	for name, tt := range map[string]struct {
		json string
		code enclave.Code
		text string
	}{
		"no report is E227":            {`{"no_report":true}`, attest.CodeNoReport, "input/output error"},
		"a truncated report is E227":   {`{"truncated":true}`, attest.CodeNoReport, "1183 bytes"},
		"another provider is E225":     {`{"provider":"tdx_guest"}`, attest.CodeWrongProvider, "tdx_guest"},
		"a misspelt fault is E227":     {`{"wrong_kee":true}`, attest.CodeNoReport, "input/output error"},
		"slow firmware is E226":        {`{"slow":2000}`, attest.CodeTimeout, "no report in time"},
		"firmware always busy is E226": {`{"busy":100000}`, attest.CodeTimeout, "no report in time"},
	} {
		t.Run(name, func(t *testing.T) {
			l.setFaults(t, tt.json)
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			_, err := l.attester.Evidence(ctx, [64]byte{1})
			r, ok := enclave.AsRefusal(err)
			require.True(t, ok, "%v", err)
			assert.Equal(t, tt.code, r.Code)
			assert.Equal(t, enclave.FaultNode, r.Fault)
			assert.Contains(t, r.Reason, tt.text)
			assert.NotEmpty(t, r.Fix)
			assert.Eventually(t, func() bool { return len(l.entries(t)) == 0 }, 10*time.Second, 20*time.Millisecond)
		})
	}
}

func TestMachineWithoutReports(t *testing.T) {
	_, err := attest.New(filepath.Join(t.TempDir(), "tsm", "report")).Evidence(t.Context(), [64]byte{})
	r, ok := enclave.AsRefusal(err)
	require.True(t, ok)
	assert.Equal(t, attest.CodeNoAttester, r.Code)
	assert.True(t, strings.HasPrefix(r.Reason, "no SEV-SNP attester: "), r.Reason)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestFilesBehaveAsTheKernels(t *testing.T) {
	l := newLab(t)
	dir := filepath.Join(l.root, "e")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.ErrorIs(t, os.Mkdir(dir, 0o700), os.ErrExist)
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		return string(b)
	}
	write := func(name string, b []byte) error { return os.WriteFile(filepath.Join(dir, name), b, 0) }
	assert.Equal(t, "sev_guest\n", read("provider"))
	assert.Equal(t, "0\n", read("generation"))
	assert.Equal(t, "0\n", read("privlevel_floor"))
	_, err := os.ReadFile(filepath.Join(dir, "outblob"))
	require.ErrorIs(t, err, syscall.EINVAL, "no question, no report")
	_, err = os.ReadFile(filepath.Join(dir, "inblob"))
	require.ErrorIs(t, err, os.ErrPermission)
	require.ErrorIs(t, write("outblob", nil), os.ErrPermission)
	for _, n := range []int{1, 32, 63, 65, 4096} {
		require.ErrorIs(t, write("inblob", make([]byte, n)), syscall.EINVAL, "%d bytes", n)
	}
	assert.Equal(t, "0\n", read("generation"))
	require.NoError(t, write("inblob", make([]byte, 64)))
	require.NoError(t, write("privlevel", []byte("0")))
	require.ErrorIs(t, write("privlevel", []byte("9")), syscall.EINVAL)
	assert.Equal(t, "2\n", read("generation"))
	first := read("outblob")
	assert.Equal(t, first, read("outblob"), "made once per question")
	assert.NotEmpty(t, read("auxblob"))
	require.NoError(t, write("inblob", make([]byte, 64)))
	assert.NotEqual(t, first, read("outblob"))
	assert.Equal(t, "3\n", read("generation"))
	require.NoError(t, os.Remove(dir))
	require.ErrorIs(t, os.Remove(dir), os.ErrNotExist)
}

func TestWriteWhileAReportIsMadeIsBusy(t *testing.T) {
	l := newLab(t)
	l.setFaults(t, `{"slow":300}`)
	dir := filepath.Join(l.root, "e")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "inblob"), make([]byte, 64), 0))
	done := make(chan error, 1)
	go func() {
		_, err := os.ReadFile(filepath.Join(dir, "outblob"))
		done <- err
	}()
	require.Eventually(t, func() bool {
		return errors.Is(os.WriteFile(filepath.Join(dir, "inblob"), make([]byte, 64), 0), syscall.EBUSY)
	}, 10*time.Second, time.Millisecond)
	require.NoError(t, <-done)
	require.NoError(t, os.Remove(dir))
}

func TestAnswerToAnotherQuestionIsNotTaken(t *testing.T) {
	l := newLab(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // another root process writes its own questions into our entry
		for {
			select {
			case <-stop:
				return
			default:
			}
			dirs, _ := os.ReadDir(l.root)
			for _, e := range dirs {
				_ = os.WriteFile(filepath.Join(l.root, e.Name(), "inblob"), []byte(strings.Repeat("x", 64)), 0)
			}
		}
	})
	for i := range 8 {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		question := [64]byte{byte(i)}
		ev, err := l.attester.Evidence(ctx, question)
		cancel()
		if err == nil {
			assert.Equal(t, hex.EncodeToString(question[:]), hex.EncodeToString(ev.Report[0x50:0x90]))
		}
	}
	close(stop)
	wg.Wait()
}
