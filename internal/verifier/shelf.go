package verifier

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/certs"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
)

// maxMemo bounds what is remembered of signatures: about 4 MiB, more chips than a site has.
const maxMemo = 1 << 15

// shelf is what an Appraisal takes from the certificate store. Certificates are read when a report
// wants one, lists when they change, so that what enclave certs sync stores counts at once.
type shelf struct {
	dir   string
	roots snp.Roots
	memo  *snp.Memo

	mu    sync.Mutex
	seen  map[string]fs.FileInfo
	lists map[string]*x509.RevocationList // the last good one of each file
	dates map[string]time.Time            // of the newest list that each file ever was
}

func newShelf(dir string, roots snp.Roots) *shelf {
	return &shelf{dir: dir, roots: roots, memo: snp.NewMemo(maxMemo), lists: map[string]*x509.RevocationList{}, dates: map[string]time.Time{}}
}

// follow takes over what an earlier shelf of the same store had in force: or an older list could come in
// with new policies.
func (s *shelf) follow(old *shelf) {
	old.mu.Lock()
	defer old.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lists, s.dates = maps.Clone(old.lists), maps.Clone(old.dates)
}

// remembering judges as the roots do, and verifies no certificate's signature a second time.
type remembering struct {
	snp.Roots
	memo *snp.Memo
}

// Endorsement is certs.Judge's.
func (r remembering) Endorsement(b []byte) (enclave.Endorsement, error) { return r.Learn(b, r.memo) }

// survey weighs every file of the store; a store that is not there has none.
func (s *shelf) survey() ([]certs.Holding, error) {
	store, err := certs.Open(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out, err := certs.Survey(store, remembering{s.roots, s.memo})
	return out, errors.Join(err, store.Close())
}

// find gives the stored certificate of a report whose host gave none, or nothing.
func (s *shelf) find(r enclave.SNPReport) ([]byte, error) {
	store, err := certs.Open(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = store.Close() }() // only read
	return store.Find(certs.Candidates(r))
}

// current are the lists in force, in the order of their names.
func (s *shelf) current() []*x509.RevocationList {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*x509.RevocationList, 0, len(s.lists))
	for _, name := range slices.Sorted(maps.Keys(s.lists)) {
		out = append(out, s.lists[name])
	}
	return out
}

// refresh reads the lists again where the directory changed. Of a file that is broken, or older
// than what it was, the last good one stays in force; the error names it, once for each change.
func (s *shelf) refresh() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, err := listsIn(s.dir)
	if err != nil {
		return err
	}
	if maps.EqualFunc(found, s.seen, sameFile) {
		return nil
	}
	var errs []error
	lists := map[string]*x509.RevocationList{}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		old := s.lists[name]
		l, err := s.read(name)
		if err != nil {
			errs = append(errs, fmt.Errorf("read revocation list %s: %w", name, err))
			l = old
		}
		if l != nil {
			lists[name], s.dates[name] = l, l.ThisUpdate
		}
	}
	s.seen, s.lists = found, lists
	return errors.Join(errs...)
}

// read reads a list. One that was taken away in between may not come back older.
func (s *shelf) read(name string) (*x509.RevocationList, error) {
	store, err := certs.Open(s.dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = store.Close() }() // only read
	b, _, err := store.Read(name)
	if err != nil {
		return nil, err
	}
	if _, err = s.roots.List(b); err != nil {
		return nil, err
	}
	l, err := snp.ParseCRL(b)
	if newest := s.dates[name]; err == nil && l.ThisUpdate.Before(newest) {
		return nil, fmt.Errorf("it is of %s, the newest so far of %s", l.ThisUpdate.UTC(), newest.UTC())
	}
	return l, err
}

func listsIn(dir string) (map[string]fs.FileInfo, error) {
	out := map[string]fs.FileInfo{}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read certificate store: %w", err)
	}
	for _, e := range entries {
		if !certs.IsList(e.Name()) {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return nil, fmt.Errorf("read certificate store: %w", err)
		}
		out[e.Name()] = info
	}
	return out, nil
}

// sameFile holds of a file that nobody replaced: Store.Write makes a new one each time.
func sameFile(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// learn verifies certificates that were seen before and those in the store, so that the first job
// after a start costs no more than the next. What is broken is for enclave certs show.
func (s *shelf) learn(seen [][]byte) {
	for _, b := range seen {
		_, _ = s.roots.Learn(b, s.memo)
	}
	store, err := certs.Open(s.dir)
	if err != nil {
		return
	}
	defer func() { _ = store.Close() }() // only read
	names, err := store.Names()
	if err != nil {
		return
	}
	for _, name := range names {
		if _, err := certs.ParsePath(name); err != nil {
			continue
		}
		if b, _, err := store.Read(name); err == nil {
			_, _ = s.roots.Learn(b, s.memo)
		}
	}
}
