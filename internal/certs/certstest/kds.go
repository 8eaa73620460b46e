// Package certstest is a key distribution service for tests: it serves a lab's certificates at the
// addresses of AMD's publication 57230, says what it was asked, and fails as it is told.
package certstest

import (
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
)

// KDS is the server. Its addresses are put together here anew, so that a wrong one of the client's
// is not found.
type KDS struct {
	*httptest.Server

	mu     sync.Mutex
	files  map[string][]byte
	faults []Fault
	log    []string
}

// Fault answers in the place of the server. file is what it would have given.
type Fault func(w http.ResponseWriter, r *http.Request, file []byte)

// New serves list and chain of each hierarchy. It ends with the test.
func New(t testing.TB, lab ...*attesttest.Hierarchy) *KDS {
	t.Helper()
	k := &KDS{files: map[string][]byte{}}
	for _, h := range lab {
		crl, err := h.CRL(time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0), false)
		if err != nil {
			t.Fatal(err)
		}
		k.Put("/vcek/v1/"+h.Line()+"/crl", crl)
		k.Put("/vcek/v1/"+h.Line()+"/cert_chain", h.Roots())
	}
	k.Server = httptest.NewServer(k)
	t.Cleanup(k.Close)
	return k
}

// Put serves bytes at a path with its query.
func (k *KDS) Put(path string, b []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.files[canonical(path)] = b
}

// Address is a chip's, by AMD's rules.
func Address(line string, c *attesttest.Chip) string {
	hwid, fmc := c.ID[:], ""
	if line == "Turin" {
		hwid, fmc = c.ID[:8], fmt.Sprintf("fmcSPL=%d&", c.TCB.FMC)
	}
	return fmt.Sprintf("/vcek/v1/%s/%s?%sblSPL=%d&teeSPL=%d&snpSPL=%d&ucodeSPL=%d",
		line, hex.EncodeToString(hwid), fmc, c.TCB.Bootloader, c.TCB.TEE, c.TCB.SNP, c.TCB.Microcode)
}

// Add serves a chip's certificate.
func (k *KDS) Add(line string, c *attesttest.Chip) { k.Put(Address(line, c), c.Certificate) }

// Fail puts faults before the next answers, one each.
func (k *KDS) Fail(faults ...Fault) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.faults = append(k.faults, faults...)
}

// Log is what was asked since the last call, a line each.
func (k *KDS) Log() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := strings.Join(k.log, "\n")
	k.log = nil
	return out
}

// canonical makes 04 of 4, as the server does not care.
func canonical(path string) string {
	u, err := url.Parse(path)
	if err != nil {
		return path
	}
	q := u.Query()
	for name, v := range q {
		q[name] = []string{strings.TrimLeft(v[0], "0")}
	}
	return u.Path + "?" + q.Encode()
}

func (k *KDS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	file, ok := k.files[canonical(r.URL.String())]
	k.log = append(k.log, r.URL.String())
	var fault Fault
	if len(k.faults) > 0 {
		fault, k.faults = k.faults[0], k.faults[1:]
	}
	k.mu.Unlock()
	switch {
	case fault != nil:
		fault(w, r, file)
	case !ok:
		http.Error(w, "not found", http.StatusNotFound)
	default:
		_, _ = w.Write(file) // the client may be gone
	}
}

// Fine is no fault.
func Fine(w http.ResponseWriter, _ *http.Request, file []byte) { _, _ = w.Write(file) }

// Status answers with a status and, unless it is empty, a Retry-After.
func Status(status int, retryAfter string) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		http.Error(w, "no", status)
	}
}

// Page is a proxy's error page, with status 200.
func Page(w http.ResponseWriter, _ *http.Request, _ []byte) {
	w.Header().Set("Content-Type", "text/html")
	_, _ = w.Write([]byte("<html><body>Please log in</body></html>"))
}

// Truncated breaks off in the middle.
func Truncated(w http.ResponseWriter, _ *http.Request, file []byte) {
	w.Header().Set("Content-Length", fmt.Sprint(len(file)))
	_, _ = w.Write(file[:len(file)/2])
}

// Short gives half of the file and says that this is all.
func Short(w http.ResponseWriter, _ *http.Request, file []byte) { _, _ = w.Write(file[:len(file)/2]) }

// Endless does not stop.
func Endless(w http.ResponseWriter, r *http.Request, _ []byte) {
	for r.Context().Err() == nil {
		if _, err := w.Write(make([]byte, 1<<16)); err != nil {
			return
		}
	}
}

// Slow says nothing until the client goes.
func Slow(started chan<- struct{}) Fault {
	return func(_ http.ResponseWriter, r *http.Request, _ []byte) {
		close(started)
		<-r.Context().Done()
	}
}

// Other gives something else.
func Other(b []byte) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ []byte) { _, _ = w.Write(b) }
}

// Redirect sends the client elsewhere.
func Redirect(to string) Fault {
	return func(w http.ResponseWriter, r *http.Request, _ []byte) { http.Redirect(w, r, to, http.StatusFound) }
}
