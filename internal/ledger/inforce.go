package ledger

import "sync"

// inForce remembers the enrolments that were found in force: every call of a node asks for its
// own. This process is the only one that writes the ledger, and what it writes makes it forget.
type inForce struct {
	mu     sync.Mutex
	byNode map[string]Enrolment
	change uint64 // counts what was written
}

func newInForce() *inForce { return &inForce{byNode: map[string]Enrolment{}} }

// get also gives the count under which a row that is read now may be put.
func (f *inForce) get(node string) (Enrolment, bool, uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e, ok := f.byNode[node]
	return e, ok, f.change
}

// put keeps a row unless something was written since it was asked for: a revoked certificate must
// not come back through a slow reader.
func (f *inForce) put(node string, e Enrolment, change uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.change == change {
		f.byNode[node] = e
	}
}

// drop is called when a write has returned, whether it failed or not.
func (f *inForce) drop(node string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.change++
	delete(f.byNode, node)
}
