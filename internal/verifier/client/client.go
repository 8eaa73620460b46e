// Package client calls the verifier: for prolog, epilog and keeper as a node, for people with a
// munge credential, for the controller and its admins over the Unix socket.
//
// It believes one key, by its pinned digest, and no clock, name or root of the system's. A
// verifier that can't be reached is a service refusal: nobody's fault, no node drains.
package client

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/roster"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/pki"
)

// Times of a call. The context may end it sooner.
const (
	dialTimeout  = 3 * time.Second
	idleTimeout  = 110 * time.Second // less than the server's
	firstPause   = 100 * time.Millisecond
	longestPause = 2 * time.Second
	longestCall  = 150 * time.Second
	maxAnswer    = 192 << 20 // the greatest receipt, in base64
)

// Options say whom to call and as whom.
type Options struct {
	Address  string         // host:port of verifier.address
	Pin      enclave.Digest // verifier.key
	Socket   string         // instead of both: the controller's Unix socket
	Patience time.Duration  // how long a verifier that can't be reached is tried again; 0 is once

	// Certificate is the node's, nil for people and strangers.
	Certificate *tls.Certificate
	// Dial opens the connection beneath TLS, for a node whose calls must leave by one address; nil
	// leaves that to the kernel.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Credential makes a munge credential over a payload, nil for nodes.
	Credential func(ctx context.Context, payload string) (string, error)
}

// Client calls one verifier. It is safe for concurrent use.
type Client struct {
	opt  Options
	http *http.Client
	base string
	tls  *tls.Config // nil for the Unix socket

	mu  sync.Mutex
	key ed25519.PublicKey
}

// New makes a client; it does not call yet.
func New(o Options) *Client {
	c := &Client{opt: o, base: "https://" + o.Address}
	t := &http.Transport{MaxIdleConnsPerHost: 1, IdleConnTimeout: idleTimeout}
	dialer := &net.Dialer{Timeout: dialTimeout}
	if o.Socket != "" {
		c.base = "http://enclaved"
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", o.Socket)
		}
	} else {
		if c.opt.Dial == nil {
			c.opt.Dial = dialer.DialContext
		}
		c.tls, t.DialTLSContext = c.config(), c.dial
	}
	c.http = &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return c
}

// Close gives idle connections back.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Key is the verifier's public key, nil before the first call. It is the one that was pinned.
func (c *Client) Key() ed25519.PublicKey {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.key
}

// Nonce opens this node's part in a job, or in its renewal.
func (c *Client) Nonce(ctx context.Context, r api.NonceRequest) (api.NonceAnswer, error) {
	return post[api.NonceAnswer](ctx, c, api.PathNonce, r)
}

// Evidence posts the announcement and waits at barrier 1.
func (c *Client) Evidence(ctx context.Context, a api.Announcement) (roster.Answer, error) {
	out, err := post[api.EvidenceAnswer](ctx, c, api.PathEvidence, a)
	return out.Answer, err
}

// Leaves fetches all peers; check them with roster.CheckPeers.
func (c *Client) Leaves(ctx context.Context, r api.NodeRequest) ([]enclave.Peer, error) {
	packed, err := post[api.Packed](ctx, c, api.PathLeaves, r)
	if err != nil {
		return nil, err
	}
	peers, err := roster.Unpack(packed)
	if err != nil {
		return nil, enclave.Refuse("E518", enclave.FaultService, "the verifier's list of peers: %v: is it of this release?", err)
	}
	return peers, nil
}

// Ready reports that the node is up and waits at barrier 2.
func (c *Client) Ready(ctx context.Context, r api.ReadyRequest) (api.ReadyAnswer, error) {
	return post[api.ReadyAnswer](ctx, c, api.PathReady, r)
}

// Decision waits until the start is decided, and is the refusal if that is what was decided.
func (c *Client) Decision(ctx context.Context, r api.NodeRequest) error {
	_, err := post[api.Empty](ctx, c, api.PathDecision, r)
	return err
}

// Broken reports that the node can't take part, and gives what was decided: the node obeys it.
func (c *Client) Broken(ctx context.Context, r api.NodeRequest, why enclave.Refusal) (enclave.Refusal, error) {
	out, err := post[api.BrokenAnswer](ctx, c, api.PathBroken, api.BrokenRequest{NodeRequest: r, Refusal: why})
	return out.Refusal, err
}

// Lost reports that the node's part of a running job's enclave is no longer whole. The job is
// ended for it.
func (c *Client) Lost(ctx context.Context, r api.BrokenRequest) (api.BrokenAnswer, error) {
	return post[api.BrokenAnswer](ctx, c, api.PathLost, r)
}

// Renew posts a renewal's announcement.
func (c *Client) Renew(ctx context.Context, a api.Announcement) (api.RenewAnswer, error) {
	return post[api.RenewAnswer](ctx, c, api.PathRenew, a)
}

// Watch waits until the job's roster changes, or for a while.
func (c *Client) Watch(ctx context.Context, r api.WatchRequest) (api.WatchAnswer, error) {
	return post[api.WatchAnswer](ctx, c, api.PathWatch, r)
}

// Prove posts evidence outside of a job, so that an admin may return this node to work.
func (c *Client) Prove(ctx context.Context, r api.ProveRequest) (api.ProveAnswer, error) {
	return post[api.ProveAnswer](ctx, c, api.PathProve, r)
}

// Teardown reports the end of a job on this node.
func (c *Client) Teardown(ctx context.Context, r api.TeardownRequest) error {
	_, err := post[api.Empty](ctx, c, api.PathTeardown, r)
	return err
}

// Register announces a job from the controller.
func (c *Client) Register(ctx context.Context, r api.RegisterRequest) (api.RegisterAnswer, error) {
	return post[api.RegisterAnswer](ctx, c, api.PathRegister, r)
}

// Settled reports from the controller that a start is over.
func (c *Client) Settled(ctx context.Context, k enclave.JobKey) (api.Settlement, error) {
	return post[api.Settlement](ctx, c, api.PathSettled, api.SettledRequest{Job: k})
}

// post sends a body and reads the answer's.
func post[A any](ctx context.Context, c *Client, path string, body any) (A, error) {
	form, marshal := api.TypeJSON, func() ([]byte, error) { return json.Marshal(body) }
	if binary, is := body.(encoding.BinaryMarshaler); is {
		form, marshal = api.TypeBinary, binary.MarshalBinary
	}
	b, err := marshal()
	if err != nil {
		var none A
		return none, fmt.Errorf("call verifier: %w", err)
	}
	return call[A](ctx, c, request{method: http.MethodPost, path: path, body: b, form: form})
}

// request is one call's, which may be made more than once.
type request struct {
	method, path  string
	body          []byte
	form          string // of the body
	authorization string
}

// call tries until somebody answers, the patience ends, or ctx does. Only a connection that
// never came about is tried again: what was sent once is not sent twice.
func call[A any](ctx context.Context, c *Client, r request) (A, error) {
	var out A
	ctx, cancel := context.WithTimeout(ctx, longestCall)
	defer cancel()
	end := time.Now().Add(c.opt.Patience)
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := c.once(ctx, r, &out)
		if _, refused := enclave.AsRefusal(err); err == nil || refused {
			return out, err
		}
		_, away := errors.AsType[notConnected](err)
		if op, dialing := errors.AsType[*net.OpError](err); dialing && op.Op == "dial" { // the Unix socket's
			away = true
		}
		if !away || !time.Now().Add(pause).Before(end) {
			return out, c.unreachable(err)
		}
		select {
		case <-ctx.Done():
			return out, c.unreachable(err)
		case <-time.After(pause):
		}
	}
}

func (c *Client) unreachable(err error) error {
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		r := enclave.Refuse("E547", enclave.FaultNode, "no file may be opened to call the verifier with: %v", err)
		r.Fix = "raise LimitNOFILE of slurmd"
		return r
	}
	where, fix := c.opt.Address, "is enclaved running there, and is verifier.address reachable?"
	if c.opt.Socket != "" {
		where, fix = c.opt.Socket, "is this the controller, and is enclaved running on it?"
	}
	r := enclave.Refuse("E500", enclave.FaultService, "the verifier at %s does not answer: %v", where, err)
	r.Fix = fix
	return r
}

func (c *Client) once(ctx context.Context, r request, out any) error {
	req, err := http.NewRequestWithContext(ctx, r.method, c.base+r.path, bytes.NewReader(r.body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", r.form)
	if r.authorization != "" {
		req.Header.Set("Authorization", r.authorization)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // read to its end, or given up
	if err = c.remember(res.TLS); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return refusal(res)
	}
	if packed, is := out.(*api.Packed); is {
		*packed, err = api.ReadBody(res.Body, res.ContentLength, maxAnswer)
		return err
	}
	return api.Decode(res.Body, maxAnswer, out)
}

func (c *Client) remember(t *tls.ConnectionState) error {
	if c.opt.Socket != "" {
		return nil
	}
	key, err := pki.PinnedKey(t)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.key = key
	return nil
}

// refusal reads the body of an answer that is none. What has no refusal in it does not come from
// a verifier of this release.
func refusal(res *http.Response) error {
	var e api.ErrorBody
	b, err := io.ReadAll(io.LimitReader(res.Body, api.MaxBody))
	if err == nil {
		err = api.Decode(bytes.NewReader(b), api.MaxBody, &e)
	}
	if err != nil || e.Refusal.Code == "" {
		return enclave.Refuse("E518", enclave.FaultService, "the verifier answered %s and no refusal: is it of this release?", res.Status)
	}
	return &e.Refusal
}
