package certs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/config"
)

// AMD is the address of AMD's key distribution service.
const AMD = "https://kdsintf.amd.com"

// Bounds of one question.
const (
	askTimeout = 60 * time.Second
	maxAnswer  = 4 << 20
)

// KDS asks a key server. A redirect is not followed: where it leads was not configured.
type KDS struct {
	base   string
	client *http.Client
	now    func() time.Time
}

// NewKDS asks the server at base. agent is told to it.
func NewKDS(base, agent string) (*KDS, error) {
	base, err := config.ParseKeyServer(base)
	if err != nil {
		return nil, fmt.Errorf("ask key server: %w", err)
	}
	return &KDS{base: base, now: time.Now, client: &http.Client{
		Timeout:       askTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &agented{agent, &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: askTimeout / 2, ForceAttemptHTTP2: true,
			DialContext: (&net.Dialer{Timeout: askTimeout / 2}).DialContext,
		}},
	}}, nil
}

// agented names us to the server.
type agented struct {
	agent string
	next  http.RoundTripper
}

func (a *agented) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("User-Agent", a.agent)
	return a.next.RoundTrip(r)
}

// Get is Getter's.
func (k *KDS) Get(ctx context.Context, query string) (Answer, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, k.base+query, nil)
	if err != nil {
		return Answer{}, err
	}
	resp, err := k.client.Do(r)
	if err != nil {
		return Answer{}, err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	a := Answer{Status: resp.StatusCode, RetryAfter: retryAfter(resp.Header.Get("Retry-After"), k.now())}
	if a.Status != http.StatusOK {
		return a, nil
	}
	a.Body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(a.Body) > maxAnswer {
		return Answer{}, errors.New("the answer does not end")
	}
	return a, err
}

// retryAfter reads both forms of the header (RFC 9110, 10.2.3).
func retryAfter(s string, now time.Time) time.Duration {
	s = strings.TrimSpace(s)
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(s); err == nil {
		return max(0, t.Sub(now))
	}
	return 0
}
