package scale

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http/httptrace"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/roster"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/client"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/verifiertest"
)

// How many nodes are made, connected and prepared at the same time. Evidence knows no such bound.
const (
	enrolAtOnce   = 64
	prepareAtOnce = 64
)

// node is one node of the job, as its prolog.
type node struct {
	*verifiertest.Node
	chip        *attesttest.Chip
	table       []byte
	certificate *tls.Certificate
	client      *client.Client
	in, out     atomic.Int64 // bytes of its connection, TLS included

	announcement api.Announcement
	answer       roster.Answer
	leaves       []enclave.Peer
	device       *device // nil: it has none
	posted, gone time.Time
}

// dialer calls from the node's own address and counts what passes.
func (n *node) dialer(from netip.Addr) func(context.Context, string, string) (net.Conn, error) {
	d := net.Dialer{Timeout: 10 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := d.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &counted{c, n}, nil
	}
}

type counted struct {
	net.Conn
	node *node
}

// Read counts what came.
func (c *counted) Read(b []byte) (int, error) {
	k, err := c.Conn.Read(b)
	c.node.in.Add(int64(k))
	return k, err
}

// Write counts what went.
func (c *counted) Write(b []byte) (int, error) {
	k, err := c.Conn.Write(b)
	c.node.out.Add(int64(k))
	return k, err
}

// connect opens the connection that all later calls use: by asking for a job that nobody knows.
func (n *node) connect(ctx context.Context) error {
	_, err := n.client.Leaves(ctx, api.NodeRequest{Job: enclave.JobKey{Cluster: cluster, Job: 1}, Node: n.Name})
	if r, ok := enclave.AsRefusal(err); !ok || r.Code != "E502" {
		return fmt.Errorf("connect node %s: %w", n.Name, err)
	}
	return nil
}

// prepare takes a nonce, has the chip sign a report, and stops before it is posted.
func (n *node) prepare(ctx context.Context, job enclave.JobKey) error {
	nonce, err := n.client.Nonce(ctx, api.NonceRequest{Job: job, Node: n.Name, Purpose: claim.PurposeJob, HPKE: n.Keys.HPKE})
	if err != nil {
		return err
	}
	n.announcement, err = n.announce(job, nonce)
	return err
}

func (n *node) announce(job enclave.JobKey, nonce api.NonceAnswer) (api.Announcement, error) {
	a, err := n.Announce(job, claim.PurposeJob, nonce)
	if err != nil {
		return a, err
	}
	data, err := api.JobClaim(job, nonce.HetOffset, sha256.Sum256(n.Verifier), nonce.Policy, &a).ReportData()
	if err != nil {
		return a, err
	}
	report, err := n.chip.Signed(n.chip.Report(data))
	if err != nil {
		return a, err
	}
	a.Evidence = enclave.Evidence{Report: report, Certificates: n.table, Provider: "sev_guest"}
	return a, n.Resign(&a)
}

// bringUp goes through both barriers. wrote is told when the evidence has left.
func (n *node) bringUp(ctx context.Context, all bool, wrote func()) error {
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { wrote() }})
	n.posted = time.Now()
	answer, err := n.client.Evidence(traced, n.announcement)
	if err != nil {
		return err
	}
	job := n.announcement.Job
	header, seed, err := answer.Accept(n.Expect(job, n.announcement.Nonce))
	if err != nil {
		return err
	}
	defer seed.Wipe()
	part := api.NodeRequest{Job: job, Node: n.Name, Epoch: header.Epoch}
	if all || n.device != nil {
		if n.leaves, err = n.client.Leaves(ctx, part); err != nil {
			return err
		}
		if err = roster.CheckPeers(header, n.leaves); err != nil {
			return err
		}
	}
	n.answer = answer
	ready := api.ReadyRequest{
		NodeRequest: part, PhasesMS: map[string]int64{"mesh": 1, "fence": 1, "subtree": 1}, Network: api.Network{Peers: header.Size - 1},
	}
	if n.device != nil {
		if err = n.device.up(order{Own: answer.Leaf, Epoch: header.Epoch, Job: job, Seed: seed.Bytes()}, n.leaves); err != nil {
			return err
		}
		ready.PhasesMS["mesh"], ready.Network.Peers = int64(n.device.upMS), n.device.peers
	}
	_, err = n.client.Ready(ctx, ready)
	n.gone = time.Now()
	return err
}

// again posts the announcement a second time, while the first waits: both get one answer. Other
// evidence is refused then, and changes nothing.
func (n *node) again(ctx context.Context, first <-chan struct{}) error {
	second, err := n.client.Evidence(ctx, n.announcement)
	if err != nil {
		return fmt.Errorf("evidence posted twice: %w", err)
	}
	<-first
	if !bytes.Equal(second.Binding, n.answer.Binding) {
		return errors.New("evidence posted twice: two answers")
	}
	other := n.announcement
	other.Endpoint = netip.AddrPortFrom(n.Address, 51821)
	if err = other.Sign(func(m []byte) ([]byte, error) { return ed25519.Sign(n.Signing, m), nil }); err != nil {
		return err
	}
	_, err = n.client.Evidence(ctx, other)
	if r, ok := enclave.AsRefusal(err); !ok || r.Code != "E125" {
		return fmt.Errorf("other evidence after the first: want E125, got %w", err)
	}
	return nil
}

// forEach calls f for 0 to n-1, at most so many at a time, and gives the first error.
func forEach(n, atOnce int, f func(int) error) error {
	var next, bad atomic.Int64
	var once sync.Once
	var first error
	var all sync.WaitGroup
	for range min(n, atOnce) {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(n) && bad.Load() == 0; i = next.Add(1) - 1 {
				if err := f(int(i)); err != nil {
					once.Do(func() { first = err })
					bad.Store(1)
				}
			}
		})
	}
	all.Wait()
	return first
}
