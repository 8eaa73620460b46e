package snp

import (
	"crypto/sha256"
	"sync"
)

// Memo remembers which certificates and lists a pinned key has signed, so that the RSA
// verification, which costs as much as half of the report's own, is made once for a chip and not
// once for a report. It remembers good signatures only: what an attacker makes up never gets in,
// so it can't drive out what is there. Times, lists and names are judged anew at every call.
//
// Any number of goroutines may use one Memo; a nil one remembers nothing.
type Memo struct {
	half int

	mu         sync.Mutex
	young, old map[[sha256.Size]byte]struct{}
}

// NewMemo makes a memo of at most n signatures, about 100 bytes each.
func NewMemo(n int) *Memo {
	return &Memo{half: max(1, n/2), young: map[[sha256.Size]byte]struct{}{}}
}

// signed asks whether the key of the certificate with this fingerprint signed child. check is the
// verification itself, made when the answer is not known.
func (m *Memo) signed(parent [sha256.Size]byte, child []byte, check func() error) error {
	if m == nil {
		return check()
	}
	h := sha256.New()
	h.Write(parent[:]) // of fixed length, so that no two pairs have one digest
	h.Write(child)
	key := [sha256.Size]byte(h.Sum(nil))
	if m.has(key) {
		return nil
	}
	if err := check(); err != nil {
		return err
	}
	m.put(key)
	return nil
}

func (m *Memo) has(key [sha256.Size]byte) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.young[key]; ok {
		return true
	}
	_, ok := m.old[key]
	if ok {
		m.insert(key)
	}
	return ok
}

func (m *Memo) put(key [sha256.Size]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.insert(key)
}

// insert forgets, once the young are too many, those of the old that nobody asked for since.
func (m *Memo) insert(key [sha256.Size]byte) {
	if len(m.young) >= m.half {
		m.old, m.young = m.young, map[[sha256.Size]byte]struct{}{}
	}
	m.young[key] = struct{}{}
}

// Len is how many signatures are remembered.
func (m *Memo) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := len(m.young)
	for key := range m.old {
		if _, twice := m.young[key]; !twice {
			n++
		}
	}
	return n
}
