package certs_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
	"github.com/slurm-enclave/slurm-enclave/internal/certs"
	"github.com/slurm-enclave/slurm-enclave/internal/certs/certstest"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
)

// site is a store, a key server and the chips of a lab.
type site struct {
	t     *testing.T
	dir   string
	kds   *certstest.KDS
	roots snp.Roots
	lab   map[string]*attesttest.Hierarchy
	chips map[string]*attesttest.Chip
	now   time.Time

	paused []time.Duration
	told   []string
}

func newSite(t *testing.T) *site {
	t.Helper()
	lab := map[string]*attesttest.Hierarchy{}
	for _, line := range []string{"Milan", "Turin"} {
		h, err := attesttest.NewHierarchy(t.TempDir(), attesttest.SmallKeys(), attesttest.Product(line))
		require.NoError(t, err)
		lab[line] = h
	}
	return siteOf(t, lab)
}

func siteOf(t *testing.T, lab map[string]*attesttest.Hierarchy) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), lab: lab, chips: map[string]*attesttest.Chip{}, now: time.Now()}
	var err error
	s.roots, err = snp.TestRoots(lab["Milan"].Roots(), lab["Turin"].Roots())
	require.NoError(t, err)
	s.kds = certstest.New(t, lab["Milan"], lab["Turin"])
	s.add("Milan", "n1", attesttest.CurrentTCB())
	s.add("Turin", "n2", enclave.TCB{FMC: 1, Bootloader: 1, TEE: 1, SNP: 4, Microcode: 81})
	return s
}

func (s *site) add(line, node string, tcb enclave.TCB) {
	s.t.Helper()
	c, err := s.lab[line].NewChip(attesttest.ChipID(node), tcb, attesttest.Validity{})
	require.NoError(s.t, err)
	s.chips[node] = c
	s.kds.Add(line, c)
}

func (s *site) key(node string) certs.Key {
	e, err := s.roots.Endorsement(s.chips[node].Certificate)
	require.NoError(s.t, err)
	return certs.KeyOf(e)
}

func (s *site) needs() []certs.Need {
	return []certs.Need{{Key: s.key("n1"), Node: "n1"}, {Key: s.key("n2"), Node: "n2"}}
}

func (s *site) survey() []certs.Holding {
	s.t.Helper()
	store, err := certs.Open(s.dir)
	require.NoError(s.t, err)
	defer func() { require.NoError(s.t, store.Close()) }()
	h, err := certs.Survey(store, s.roots)
	require.NoError(s.t, err)
	return h
}

func (s *site) sync(ctx context.Context, needs ...certs.Need) certs.Result {
	s.t.Helper()
	store, err := certs.Open(s.dir)
	require.NoError(s.t, err)
	defer func() { require.NoError(s.t, store.Close()) }()
	g, err := certs.NewKDS(s.kds.URL, "test")
	require.NoError(s.t, err)
	s.paused, s.told = nil, nil
	y := certs.Syncer{
		Store: store, Judge: s.roots, Getter: g, Interval: 10 * time.Second, Now: func() time.Time { return s.now },
		Pause: func(ctx context.Context, d time.Duration) error { s.paused = append(s.paused, d); return ctx.Err() },
		Tell: func(e certs.Event) {
			s.told = append(s.told, fmt.Sprintf("%d %d/%d %s", e.Step, e.Done, e.All, e.Task))
		},
	}
	authorities := []certs.Authority{{Product: "milan", Signer: "VCEK"}, {Product: "turin", Signer: "VCEK"}}
	return y.Sync(ctx, certs.Plan(needs, authorities, s.survey(), s.now))
}

func TestSyncFetchesWhatIsMissing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	r := s.sync(t.Context(), s.needs()...)
	require.Empty(t, r.Failed)
	assert.Equal(t, 6, r.Fetched)
	assert.Equal(t, []time.Duration{10 * time.Second, 10 * time.Second}, s.paused, "before each certificate")
	n1, n2 := s.chips["n1"].ID, s.chips["n2"].ID
	assert.Equal(t, "/vcek/v1/Milan/crl\n/vcek/v1/Milan/cert_chain\n/vcek/v1/Turin/crl\n/vcek/v1/Turin/cert_chain\n"+
		"/vcek/v1/Milan/"+n1.String()+"?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219\n"+
		"/vcek/v1/Turin/"+n2.String()[:16]+"?fmcSPL=01&blSPL=01&teeSPL=01&snpSPL=04&ucodeSPL=81", s.kds.Log())
	for _, h := range s.survey() {
		assert.True(t, h.Good(s.now), h.Path)
	}
	assert.Empty(t, certs.Missing(s.needs(), s.survey(), s.now))
	assert.Equal(t, "0 0/6 the revocation list of milan VCEK", s.told[0])
	assert.Equal(t, "2 6/6 the VCEK of n2, "+s.key("n2").String(), s.told[11])

	r = s.sync(t.Context(), s.needs()...)
	assert.Equal(t, certs.Result{}, r)
	assert.Empty(t, s.kds.Log(), "what is there is not asked for again")
	s.now = s.now.Add(2 * time.Hour)
	require.Empty(t, s.sync(t.Context(), s.needs()...).Failed)
	assert.Equal(t, "/vcek/v1/Milan/crl\n/vcek/v1/Turin/crl", s.kds.Log(), "but for lists, which may have grown")
}

func TestSyncTakesWhatTheHostGave(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	needs := s.needs()
	needs[0].Given = s.chips["n1"].Certificate
	needs[1].Given = s.chips["n1"].Certificate // a host that lies
	r := s.sync(t.Context(), needs...)
	require.Empty(t, r.Failed)
	assert.Equal(t, 1, r.Taken)
	assert.Equal(t, 5, r.Fetched, "where a host lies the server is asked")
	log := s.kds.Log()
	assert.NotContains(t, log, s.chips["n1"].ID.String())
	assert.Contains(t, log, s.chips["n2"].ID.String()[:16])
}

func TestSyncWaitsAndAsksAgain(t *testing.T) {
	t.Parallel()
	lab := newSite(t).lab
	for name, tt := range map[string]struct {
		faults []certstest.Fault
		paused []time.Duration
	}{
		"after 429 without a time, longer each time": {
			[]certstest.Fault{certstest.Status(429, ""), certstest.Status(429, ""), certstest.Status(429, "")},
			[]time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second},
		},
		"after 429 as long as it says":           {[]certstest.Fault{certstest.Status(429, "77")}, []time.Duration{77 * time.Second}},
		"after 429 never shorter than is decent": {[]certstest.Fault{certstest.Status(429, "0")}, []time.Duration{10 * time.Second}},
		"after 429 with a date that has passed":  {[]certstest.Fault{certstest.Status(429, "Sun, 06 Nov 1994 08:49:37 GMT")}, []time.Duration{10 * time.Second}},
		"after 503":                              {[]certstest.Fault{certstest.Status(503, "30")}, []time.Duration{30 * time.Second}},
		"after an answer that breaks off":        {[]certstest.Fault{certstest.Truncated}, []time.Duration{10 * time.Second}},
		"after an answer that does not end":      {[]certstest.Fault{certstest.Endless}, []time.Duration{10 * time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := siteOf(t, lab)
			s.kds.Fail(tt.faults...)
			r := s.sync(t.Context())
			require.Empty(t, r.Failed)
			assert.Equal(t, 4, r.Fetched)
			assert.Equal(t, tt.paused, s.paused)
		})
	}
}

func TestSyncGivesUpWhereAskingDoesNotHelp(t *testing.T) {
	t.Parallel()
	lab := newSite(t).lab
	patient := []certstest.Fault{}
	for range 7 {
		patient = append(patient, certstest.Status(429, ""))
	}
	for name, faults := range map[string][]certstest.Fault{
		"too many requests, seven times":      patient,
		"come back tomorrow":                  {certstest.Status(429, "86400")},
		"a date of next year for Retry-After": {certstest.Status(429, time.Now().AddDate(1, 0, 0).UTC().Format(http.TimeFormat))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := siteOf(t, lab)
			s.kds.Fail(append([]certstest.Fault{certstest.Fine}, faults...)...)
			r := s.sync(t.Context(), s.needs()...)
			require.Len(t, r.Failed, 1)
			require.ErrorIs(t, r.Failed[0], certs.ErrAway)
			assert.Equal(t, 1, r.Fetched, "the file before it is kept")
			s.kds.Log()
			r = s.sync(t.Context(), s.needs()...)
			require.Empty(t, r.Failed)
			assert.Equal(t, 5, r.Fetched)
			assert.NotContains(t, s.kds.Log(), "/Milan/crl", "and not asked for again")
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		t.Parallel()
		s := siteOf(t, lab)
		s.kds.Close()
		r := s.sync(t.Context(), s.needs()...)
		require.Len(t, r.Failed, 1)
		require.ErrorIs(t, r.Failed[0], certs.ErrAway)
	})
}

func TestWrongAnswersAreRefusedAndNamed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	foreign, err := attesttest.NewHierarchy(t.TempDir(), attesttest.SmallKeys())
	require.NoError(t, err)
	s.add("Milan", "n3", attesttest.CurrentTCB())
	old, err := s.chips["n1"].At(attesttest.OldTCB())
	require.NoError(t, err)
	forged, err := foreign.NewChip(s.chips["n1"].ID, attesttest.CurrentTCB(), attesttest.Validity{})
	require.NoError(t, err)
	expired, err := s.lab["Milan"].NewChip(s.chips["n1"].ID, attesttest.CurrentTCB(), attesttest.Validity{NotBefore: s.now.AddDate(-1, 0, 0), NotAfter: s.now.Add(-time.Hour)})
	require.NoError(t, err)
	early, err := s.lab["Milan"].NewChip(s.chips["n1"].ID, attesttest.CurrentTCB(), attesttest.Validity{NotBefore: s.now.Add(time.Hour), NotAfter: s.now.AddDate(1, 0, 0)})
	require.NoError(t, err)
	stale, err := s.lab["Milan"].CRL(s.now.AddDate(-1, 0, 0), s.now.Add(-time.Hour), false)
	require.NoError(t, err)
	forgedList, err := foreign.CRL(s.now.Add(-time.Hour), s.now.Add(time.Hour), false)
	require.NoError(t, err)
	turinList, err := s.lab["Turin"].CRL(s.now.Add(-time.Hour), s.now.Add(time.Hour), false)
	require.NoError(t, err)
	chip, list, chain := certstest.Address("Milan", s.chips["n1"]), "/vcek/v1/Milan/crl", "/vcek/v1/Milan/cert_chain"
	elsewhere := certstest.New(t, s.lab["Milan"])
	for name, tt := range map[string]struct {
		path  string
		fault certstest.Fault
		why   string
	}{
		"another chip's certificate":       {chip, certstest.Other(s.chips["n3"].Certificate), "the certificate is another's"},
		"another patch level's":            {chip, certstest.Other(old.Certificate), "the certificate is another's"},
		"another product's":                {chip, certstest.Other(s.chips["n2"].Certificate), "the certificate is another's"},
		"a certificate of foreign keys":    {chip, certstest.Other(forged.Certificate), "not made by the pinned SEV-Milan"},
		"an expired certificate":           {chip, certstest.Other(expired.Certificate), "it ended at"},
		"a certificate of tomorrow":        {chip, certstest.Other(early.Certificate), "it is not valid before"},
		"the chain in place of it":         {chip, certstest.Other(s.lab["Milan"].Roots()), "not one VCEK"},
		"half a certificate":               {chip, certstest.Short, "does not parse"},
		"nothing":                          {chip, certstest.Other(nil), "no certificate"},
		"an error page":                    {chip, certstest.Page, "neither DER nor PEM"},
		"a redirect":                       {chip, certstest.Redirect(elsewhere.URL + chip), "a redirect, which is not followed"},
		"a refusal":                        {chip, certstest.Status(403, ""), "status 403"},
		"a list of foreign keys":           {list, certstest.Other(forgedList), "not signed by it"},
		"a list of another product":        {list, certstest.Other(turinList), "the list is another's: of ARK-Turin"},
		"an expired list":                  {list, certstest.Other(stale), "it ended at"},
		"an error page in place of a list": {list, certstest.Page, "parse CRL"},
		"a chain of foreign keys":          {chain, certstest.Other(foreign.Roots()), "is not pinned in this release"},
		"another product's chain":          {chain, certstest.Other(s.lab["Turin"].Roots()), "it is of SEV-Turin, not of SEV-Milan"},
		"a chain without its root":         {chain, certstest.Other(s.lab["Milan"].Roots()[:1700]), "read certificate chain"},
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			s.dir = t.TempDir()
			for range map[string]int{list: 0, chain: 1, chip: 4}[tt.path] { // what is asked for before it
				s.kds.Fail(certstest.Fine)
			}
			s.kds.Fail(tt.fault)
			r := s.sync(t.Context(), s.needs()...)
			require.Len(t, r.Failed, 1)
			require.ErrorIs(t, r.Failed[0], certs.ErrWrong)
			require.ErrorContains(t, r.Failed[0], tt.why)
			assert.Equal(t, 5, r.Fetched, "the others are stored")
			assert.Len(t, s.survey(), 5)
			assert.Empty(t, elsewhere.Log())
			assert.Empty(t, s.paused[2:], "it is not asked for again")
		})
	}
}

func TestMissingCertificateIsNamedAndTheNextIsFetched(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.kds.Fail(certstest.Fine, certstest.Fine, certstest.Fine, certstest.Fine, certstest.Status(404, ""))
	r := s.sync(t.Context(), s.needs()...)
	require.Len(t, r.Failed, 1)
	require.ErrorIs(t, r.Failed[0], certs.ErrMissing)
	require.ErrorContains(t, r.Failed[0], "fetch the VCEK of n1, milan "+s.chips["n1"].ID.String()[:16])
	assert.Equal(t, 5, r.Fetched)
}

func TestAnInterruptedSyncGoesOn(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx, cancel := context.WithCancel(t.Context())
	started := make(chan struct{})
	go func() { <-started; cancel() }()
	s.kds.Fail(certstest.Fine, certstest.Fine, certstest.Slow(started))
	r := s.sync(ctx, s.needs()...)
	require.Len(t, r.Failed, 1)
	require.ErrorIs(t, r.Failed[0], context.Canceled)
	assert.Equal(t, 2, r.Fetched)
	r = s.sync(t.Context(), s.needs()...)
	require.Empty(t, r.Failed)
	assert.Equal(t, 4, r.Fetched)
}

func TestAListIsNeverReplacedByAnOlderOne(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	revoking, err := s.lab["Milan"].CRL(s.now.Add(-time.Minute), s.now.AddDate(1, 0, 0), true)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "milan-vcek.crl"), revoking, 0o644))
	s.now = s.now.Add(2 * time.Hour)
	r := s.sync(t.Context())
	require.Len(t, r.Failed, 1)
	require.ErrorContains(t, r.Failed[0], "the list there is newer")
	w := certs.Warnings(s.survey(), s.now, certs.WarnAhead)
	assert.Equal(t, []certs.Warning{{Path: "milan-vcek.crl", Text: "revokes SEV-Milan"}}, w)
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	list := func(name string, from, to time.Time) {
		b, err := s.lab["Milan"].Revocations(&x509.RevocationList{ThisUpdate: from, NextUpdate: to})
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(s.dir, name), b, 0o644))
	}
	hour, days := time.Hour, func(n int) time.Time { return s.now.AddDate(0, 0, n).Add(time.Hour) }
	list("good.crl", s.now.Add(-hour), days(31))
	list("soon.crl", s.now.Add(-hour), days(29))
	list("late.crl", s.now.Add(-2*hour), s.now.Add(-hour))
	list("early.crl", s.now.Add(hour), days(90))
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "page.crl"), []byte("<html>"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "notes.txt"), []byte("ours"), 0o644))
	moved := s.key("n2").Path()
	require.NoError(t, os.MkdirAll(filepath.Join(s.dir, filepath.Dir(moved)), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, moved), s.chips["n1"].Certificate, 0o644))
	var text []string
	for _, w := range certs.Warnings(s.survey(), s.now, certs.WarnAhead) {
		text = append(text, w.Path+" "+w.Text)
	}
	all := strings.Join(text, "\n")
	assert.Len(t, text, 5)
	assert.Contains(t, all, "soon.crl ends on "+days(29).UTC().Format(time.DateOnly)+", in 29 days")
	assert.Contains(t, all, "late.crl ended on "+s.now.Add(-hour).UTC().Format(time.DateOnly))
	assert.Contains(t, all, "early.crl is not valid before")
	assert.Contains(t, all, "page.crl is of no use: parse CRL")
	assert.Contains(t, all, moved+" is of no use: the certificate is another's")
	assert.Len(t, certs.Missing(s.needs(), s.survey(), s.now), 2, "what is of no use is missing")
}

func TestStoreLeadsNowhereElse(t *testing.T) {
	t.Parallel()
	dir, outside := t.TempDir(), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(outside, "secret.crl"), []byte("x"), 0o600))
	require.NoError(t, os.Symlink(filepath.Join(outside, "secret.crl"), filepath.Join(dir, "milan-vcek.crl")))
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "milan")))
	store, err := certs.Open(dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close()) }()
	_, _, err = store.Read("milan-vcek.crl")
	require.Error(t, err)
	require.Error(t, store.Write("milan/x.der", []byte("y")), "the directory leads out")
	require.NoError(t, store.Write("milan-vcek.crl", []byte("z")), "the link is replaced, not followed")
	b, err := os.ReadFile(filepath.Join(outside, "secret.crl"))
	require.NoError(t, err)
	assert.Equal(t, "x", string(b))
	_, err = certs.Open(filepath.Join(dir, "nowhere"))
	require.ErrorIs(t, err, os.ErrNotExist)
	entries, err := os.ReadDir(outside)
	require.NoError(t, err)
	assert.Len(t, entries, 1)
}

// recorded answers with bytes of a fuzzer.
type recorded certs.Answer

func (r recorded) Get(context.Context, string) (certs.Answer, error) { return certs.Answer(r), nil }

// sharedLab has one set of keys for all processes of a fuzzer: its workers get the seeds of the
// first one, and must know who signed them.
func sharedLab(f *testing.F) *attesttest.Hierarchy {
	f.Helper()
	const name = "ENCLAVE_FUZZ_LAB"
	dir := os.Getenv(name)
	if dir == "" {
		dir = f.TempDir()
		f.Setenv(name, dir)
	}
	h, err := attesttest.NewHierarchy(dir, attesttest.SmallKeys())
	require.NoError(f, err)
	return h
}

func FuzzAnswers(f *testing.F) {
	h := sharedLab(f)
	roots, err := snp.TestRoots(h.Roots())
	require.NoError(f, err)
	chip, err := h.Chip("n1")
	require.NoError(f, err)
	crl, err := h.CRL(time.Unix(0, 0), time.Unix(1<<32, 0), false)
	require.NoError(f, err)
	for _, b := range [][]byte{chip.Certificate, crl, h.Roots(), chip.Table(), []byte("<html>"), nil} {
		f.Add(200, b)
	}
	f.Add(429, []byte("x"))
	e, err := roots.Endorsement(chip.Certificate)
	require.NoError(f, err)
	needs := []certs.Need{{Key: certs.KeyOf(e)}}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		dir := t.TempDir()
		store, err := certs.Open(dir)
		require.NoError(t, err)
		defer func() { require.NoError(t, store.Close()) }()
		y := certs.Syncer{
			Store: store, Judge: roots, Getter: recorded{Status: status, Body: body}, Now: time.Now, Tell: func(certs.Event) {},
			Pause: func(context.Context, time.Duration) error { return errors.New("not in a test") },
		}
		r := y.Sync(t.Context(), certs.Plan(needs, []certs.Authority{{Product: "milan", Signer: "VCEK"}}, nil, time.Now()))
		held, err := certs.Survey(store, roots)
		require.NoError(t, err)
		require.Len(t, held, r.Fetched)
		for _, x := range held {
			require.True(t, x.Good(time.Now()), x.Path)
		}
	})
}
