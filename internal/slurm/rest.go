package slurm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/job"
)

// Bounds of one question. The answer on a job lists the cores of all its nodes.
const (
	restTimeout = 20 * time.Second
	maxAnswer   = 32 << 20
)

// Endpoint is where slurmrestd listens and who we are to it: on a socket, the user whose process we
// are; elsewhere, User with Token.
type Endpoint struct {
	Socket string // path, or ""
	URL    string // https://HOST:PORT; http on the loopback
	User   string
	Token  func() (enclave.Secret, error) // read for every call, since tokens end and are replaced; nil: none
}

// REST is the driver on slurmrestd. It asks for what the server's own OpenAPI document offers; what that
// lacks, and only that, is done with the commands (ByCommand). A server that does not answer, or says
// no, is an error: its word is never replaced by another's.
type REST struct {
	at     Endpoint
	base   string
	client *http.Client
	cli    *CLI

	mu    sync.Mutex
	offer *offer // nil: not asked yet
}

// NewREST makes the driver. commands does what the server does not offer.
func NewREST(at Endpoint, commands *CLI) *REST {
	dialer := &net.Dialer{Timeout: restTimeout / 2}
	t := &http.Transport{DisableKeepAlives: true, TLSHandshakeTimeout: restTimeout / 2, DialContext: dialer.DialContext}
	base := strings.TrimRight(at.URL, "/")
	if at.Socket != "" {
		base = "http://localhost"
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", at.Socket)
		}
	}
	return &REST{at: at, base: base, cli: commands, client: &http.Client{
		Transport: t, Timeout: restTimeout,
		// A token goes to nobody but whom the site has named.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Version is the API version in use, after asking the server when that is not known yet.
func (r *REST) Version(ctx context.Context) (string, error) {
	o, err := r.offered(ctx)
	return o.version, err
}

// ByCommand lists the duties that this server has no call for, and the commands do.
func (r *REST) ByCommand(ctx context.Context) ([]Duty, error) {
	o, err := r.offered(ctx)
	if err != nil {
		return nil, err
	}
	var out []Duty
	for _, c := range calls() {
		if !o.has(c.duty) {
			out = append(out, c.duty)
		}
	}
	return append(out, DutyNotify), nil
}

// offered asks for the document once.
func (r *REST) offered(ctx context.Context) (offer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.offer != nil {
		return *r.offer, nil
	}
	status, b, err := r.ask(ctx, http.MethodGet, "/openapi/v3", nil)
	if err == nil && status != http.StatusOK {
		err = unexpected(status, b)
	}
	if err != nil {
		return offer{}, fmt.Errorf("ask slurmrestd what it offers: %w", err)
	}
	o, err := parseOffer(b)
	if err != nil {
		return offer{}, fmt.Errorf("ask slurmrestd what it offers: %w", err)
	}
	r.offer = &o
	return o, nil
}

// forget makes the next call ask again: a slurmrestd that was exchanged for a newer one may have dropped
// the version.
func (r *REST) forget(o offer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.offer != nil && r.offer.version == o.version {
		r.offer = nil
	}
}

// errNoPath says that the server does not know the path that it offered before.
var errNoPath = errors.New("slurmrestd does not have this call any more")

// do asks for a duty. what is the job or node that the path names, "" when it names none.
func (r *REST) do(ctx context.Context, o offer, d Duty, what string, body any) (answer, error) {
	path := o.paths[d]
	path = strings.NewReplacer("{job_id}", what, "{node_name}", what).Replace(path)
	method := ""
	for _, c := range calls() {
		if c.duty == d {
			method = strings.ToUpper(c.method)
		}
	}
	status, b, err := r.ask(ctx, method, path, body)
	if err != nil {
		return answer{}, err
	}
	if status == http.StatusNotModified { // as 26.05 says that slurmdbd knows no such record
		return answer{}, errEmpty
	}
	a, err := parseAnswer(b)
	switch {
	case named(err):
		return a, err
	case status == http.StatusNotFound:
		r.forget(o)
		return a, errNoPath
	case status != http.StatusOK && a.Errors == nil:
		return a, unexpected(status, b)
	}
	return a, err
}

func named(err error) bool {
	for _, e := range []error{ErrNoJob, ErrNoNode, ErrFinished, ErrInteractive, errEmpty} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func unexpected(status int, body []byte) error {
	err := fmt.Errorf("slurmrestd answered %d %s: %s", status, http.StatusText(status), job.Printable(string(body), 200))
	if status == http.StatusUnauthorized || status == http.StatusForbidden {
		return fmt.Errorf("%w; on a socket it must run as the same user as enclaved, elsewhere the token must be valid", err)
	}
	return err
}

// ask sends one request and reads its answer to the end.
func (r *REST) ask(ctx context.Context, method, path string, body any) (int, []byte, error) {
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, nil, fmt.Errorf("ask slurmrestd: %w", err)
		}
		content = bytes.NewReader(b)
	}
	q, err := http.NewRequestWithContext(ctx, method, r.base+path, content)
	if err != nil {
		return 0, nil, fmt.Errorf("ask slurmrestd: %w", err)
	}
	q.Header.Set("Accept", "application/json")
	q.Header.Set("Content-Type", "application/json")
	if r.at.Token != nil {
		token, errToken := r.at.Token()
		if errToken != nil {
			return 0, nil, fmt.Errorf("ask slurmrestd: %w", errToken)
		}
		q.Header.Set("X-SLURM-USER-NAME", r.at.User)
		q.Header.Set("X-SLURM-USER-TOKEN", string(token.Bytes()))
		token.Wipe()
	}
	resp, err := r.client.Do(q)
	if err != nil {
		return 0, nil, fmt.Errorf("ask slurmrestd: %w", err)
	}
	defer func() { _ = resp.Body.Close() }() // only read
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return 0, nil, fmt.Errorf("ask slurmrestd: %w", err)
	}
	if len(b) > maxAnswer {
		return 0, nil, fmt.Errorf("ask slurmrestd: its answer is over %d bytes", maxAnswer)
	}
	return resp.StatusCode, b, nil
}

// try does a duty by REST, or says with ok false that the server does not offer it. When the server
// has dropped the version meanwhile, it is asked anew, once.
func (r *REST) try(ctx context.Context, d Duty, what string, body any) (a answer, ok bool, err error) {
	for range 2 {
		var o offer
		if o, err = r.offered(ctx); err != nil {
			return answer{}, true, err
		}
		if !o.has(d) {
			return answer{}, false, nil
		}
		if a, err = r.do(ctx, o, d, what, body); !errors.Is(err, errNoPath) {
			return a, true, err
		}
	}
	return a, true, err
}
