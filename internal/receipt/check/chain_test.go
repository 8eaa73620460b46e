package check_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/receipt"
	"github.com/slurm-enclave/slurm-enclave/internal/receipt/check"
	"github.com/slurm-enclave/slurm-enclave/internal/receipt/receipttest"
)

// chain makes n receipts as a ledger has them.
func chain(t *testing.T, s *receipttest.Scene, n int) []check.Link {
	t.Helper()
	var links []check.Link
	var before enclave.Digest
	for i := range n {
		p := &s.Statement.Predicate
		p.Job.Job = uint32(100 + i)
		subject, err := receipt.SubjectOf(p.Job)
		require.NoError(t, err)
		s.Statement.Subject = []receipt.Subject{subject}
		p.Chain = receipt.Chain{Sequence: uint64(i + 1), Previous: before}
		file := seal(t, s)
		row := &check.Row{Job: p.Job.JobKey, Sequence: p.Chain.Sequence, Digest: sha256.Sum256(file), Previous: before}
		links = append(links, check.Link{Name: fmt.Sprintf("row %d", i+1), File: file, Row: row})
		before = row.Digest
	}
	return links
}

func walk(c *check.Chain, links []check.Link) string {
	for _, l := range links {
		c.Add(l)
	}
	return strings.Join(c.Faults, "\n")
}

func TestAWholeChainHolds(t *testing.T) {
	t.Parallel()
	s := newScene(t, true)
	links := chain(t, s, 4)
	c := check.NewChain(1, []ed25519.PublicKey{s.Public()}, nil)
	assert.Empty(t, walk(c, links))
	head := check.Place{Sequence: 4, Digest: links[3].Row.Digest}
	c.End(&head)
	assert.Empty(t, c.Faults)
	assert.Equal(t, head, c.Head)
	assert.Equal(t, 4, c.Simulated)
	require.Len(t, c.Keys, 1)
	assert.Contains(t, c.Keys[0], "pinned")
	t.Run("a place that was noted is known again, and later receipts may have come", func(t *testing.T) {
		t.Parallel()
		noted, err := check.ParsePlace(check.Place{Sequence: 2, Digest: links[1].Row.Digest}.String())
		require.NoError(t, err)
		c := check.NewChain(1, nil, &noted)
		assert.Empty(t, walk(c, links))
		c.End(nil)
		assert.Empty(t, c.Faults)
	})
	t.Run("a part of it holds from where it begins", func(t *testing.T) {
		t.Parallel()
		assert.Empty(t, walk(check.NewChain(3, nil, nil), links[2:]))
	})
}

func TestWhatWasDoneToAChainIsFound(t *testing.T) {
	t.Parallel()
	s, stranger := newScene(t, true), newScene(t, true)
	good, foreign := chain(t, s, 4), chain(t, stranger, 4)
	bare := func(links []check.Link) []check.Link { // exported files have no rows
		out := slices.Clone(links)
		for i := range out {
			out[i].Row = nil
		}
		return out
	}
	for name, tt := range map[string]struct {
		links []check.Link
		want  string
	}{
		"a removed receipt":                   {slices.Delete(slices.Clone(good), 1, 2), "receipt 2 is missing before row 3"},
		"two removed receipts":                {slices.Delete(slices.Clone(good), 1, 3), "receipts 2 to 3 are missing"},
		"a removed beginning":                 {good[1:], "receipt 1 is missing"},
		"a changed receipt":                   {changed(good, 1, 'x'), "row 2 was changed"},
		"a receipt that is doubled":           {bare([]check.Link{good[0], good[1], good[1]}), "doubled or moved"},
		"two receipts that changed places":    {bare([]check.Link{good[0], good[2], good[1], good[3]}), "receipt 2 is missing before row 3"},
		"rows whose files changed places":     {swapped(good, 1, 2), "the ledger says otherwise"},
		"a receipt of another verifier":       {[]check.Link{good[0], foreign[1]}, "another verifier"},
		"a replaced receipt, signed anew":     {bare([]check.Link{good[0], resealed(t, s, good[0]), good[2], good[3]}), "row 3 follows another receipt"},
		"a receipt before that was exchanged": {bare([]check.Link{foreign[0], good[1]}), "row 2 follows another receipt"},
	} {
		t.Run(name+" is found", func(t *testing.T) {
			t.Parallel()
			assert.Contains(t, walk(check.NewChain(1, nil, nil), tt.links), tt.want)
		})
	}
	t.Run("a cut tail is found with a place that was noted before", func(t *testing.T) {
		t.Parallel()
		noted := check.Place{Sequence: 4, Digest: good[3].Row.Digest}
		c := check.NewChain(1, nil, &noted)
		require.Empty(t, walk(c, good[:3]), "nothing else shows it")
		c.End(nil)
		assert.Contains(t, strings.Join(c.Faults, ""), "receipt 4, which you noted, is not there")
	})
	t.Run("a tail that grew again after it was cut is found", func(t *testing.T) {
		t.Parallel()
		noted := check.Place{Sequence: 4, Digest: enclave.Digest{1}}
		assert.Contains(t, walk(check.NewChain(1, nil, &noted), good), "that you noted, with another digest")
	})
	t.Run("a head that is not the end is found", func(t *testing.T) {
		t.Parallel()
		c := check.NewChain(1, nil, nil)
		require.Empty(t, walk(c, good[:3]))
		c.End(&check.Place{Sequence: 4, Digest: good[3].Row.Digest})
		assert.Contains(t, strings.Join(c.Faults, ""), "calls 4:")
	})
	t.Run("another key than the pinned one is found", func(t *testing.T) {
		t.Parallel()
		assert.Contains(t, walk(check.NewChain(1, []ed25519.PublicKey{stranger.Public()}, nil), good), "none of yours")
	})
}

// changed flips a letter in the payload of one receipt.
func changed(links []check.Link, i int, to byte) []check.Link {
	out := slices.Clone(links)
	out[i].File = slices.Clone(out[i].File)
	out[i].File[100] = to
	if out[i].File[100] == links[i].File[100] {
		out[i].File[100]++
	}
	return out
}

func swapped(links []check.Link, i, j int) []check.Link {
	out := slices.Clone(links)
	out[i].File, out[j].File = out[j].File, out[i].File
	return out
}

// resealed is number 2 made anew by a verifier that wants another past.
func resealed(t *testing.T, s *receipttest.Scene, before check.Link) check.Link {
	t.Helper()
	anew := *s
	p := &anew.Statement.Predicate
	p.Chain = receipt.Chain{Sequence: 2, Previous: before.Row.Digest}
	p.Weak = !p.Weak
	return check.Link{Name: "row 2", File: seal(t, &anew)}
}

func TestPlacesAreSpelledInOneWay(t *testing.T) {
	t.Parallel()
	d := strings.Repeat("0a", 32)
	_, err := check.ParsePlace("7:" + d)
	require.NoError(t, err)
	for _, bad := range []string{"", "7", ":" + d, "7:", "x:" + d, "07:" + d, "-7:" + d, "7:" + strings.ToUpper(d), "7:" + d + "0", "7 :" + d} {
		_, err := check.ParsePlace(bad)
		require.Error(t, err, bad)
	}
}
