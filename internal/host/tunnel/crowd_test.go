package tunnel_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/host/tunnel"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
)

// crowd waits for a line, sends to all addresses at once, and says how long the last answer took.
func (r role) crowd() error {
	var all []net.Conn
	for address := range strings.SplitSeq(r.Address, ",") {
		c, err := net.Dial("udp", address)
		if err != nil {
			return err
		}
		all = append(all, c)
	}
	fmt.Println("ready")
	if !bufio.NewScanner(os.Stdin).Scan() {
		return os.ErrClosed
	}
	began := time.Now()
	for _, c := range all {
		if _, err := c.Write([]byte("hello")); err != nil {
			return err
		}
	}
	b := make([]byte, 100)
	for _, c := range all {
		if err := c.SetReadDeadline(began.Add(20 * time.Second)); err != nil {
			return err
		}
		if _, err := c.Read(b); err != nil {
			return err
		}
	}
	fmt.Println("took", time.Since(began).Milliseconds())
	return nil
}

// warm has all nodes make their sessions with all others, as after the second barrier.
func (l *lab) warm() error {
	errs := make([]error, len(l.nodes))
	var all sync.WaitGroup
	for i, n := range l.nodes {
		all.Go(func() {
			errs[i] = n.Beside(func() error {
				return tunnel.Warm(l.t.Context(), device, tunnel.Port, mesh.Mark(job), n.mesh.Pairs(n.own.Key), 2*time.Millisecond)
			})
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// TestFirstContact: eight nodes that have never spoken to each other all speak to all at once, as
// ranks do in their first all-to-all. Without what package crossing does, they wait 5 to 10 s.
func TestFirstContact(t *testing.T) {
	const nodes = 8
	l := buildOf(t, nodes)
	for _, n := range l.nodes {
		n.up(t)
	}
	if l.driver != mesh.DriverKeeper { // the kernel's handshakes are paced, before any rank starts, as the prolog does
		require.NoError(t, l.probe(20*time.Second))
		require.NoError(t, l.warm())
	}
	for i, n := range l.nodes {
		serve(t, n.Node, user, "udp", fmt.Sprintf("10.77.0.%d:7000", i+1))
	}
	var ranks []*actor
	for i, n := range l.nodes {
		var peers []string
		for j := 1; j < nodes; j++ {
			peers = append(peers, fmt.Sprintf("10.77.0.%d:7000", (i+j)%nodes+1))
		}
		a := act(t, n.Node, user, role{Proto: "crowd", Address: strings.Join(peers, ",")})
		a.must("ready")
		ranks = append(ranks, a)
	}
	for _, a := range ranks {
		a.say("go")
	}
	worst := 0
	for _, a := range ranks {
		require.True(t, a.says("took", 25*time.Second), "%q", a.seen)
		ms, err := strconv.Atoi(strings.TrimPrefix(a.seen[len(a.seen)-1], "took "))
		require.NoError(t, err)
		worst = max(worst, ms)
	}
	t.Logf("%d nodes, %d pairs: the last of all first answers came after %d ms", nodes, nodes*(nodes-1)/2, worst)
	require.Less(t, worst, 4000, "WireGuard's retry comes after 5 s")
}
