package crossing_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.zx2c4.com/wireguard/conn"

	"github.com/slurm-enclave/slurm-enclave/internal/host/crossing"
)

// FuzzHold sends what anybody may send to the port.
func FuzzHold(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0}, []byte{2, 0, 0, 0})
	f.Add(append([]byte{1, 0, 0, 0}, make([]byte, 144)...), append([]byte{2, 0, 0, 0}, make([]byte, 88)...))
	f.Fuzz(func(t *testing.T, sent, got []byte) {
		e := &ether{ports: map[string]*port{}, sent: map[byte]int{}, lose: func(string, string, []byte) bool { return true }}
		p := &port{net: e, own: end(netip.MustParseAddrPort("192.0.2.1:51820")), in: make(chan delivery, 2)}
		b := crossing.Wrap(p)
		_, err := b.ParseEndpoint(p.own.DstToString())
		require.NoError(t, err)
		list, _, err := b.Open(0)
		require.NoError(t, err)
		if len(sent) > 0 {
			require.NoError(t, b.Send([][]byte{sent}, p.own))
		}
		p.in <- delivery{got, p.own}
		packet, sizes, from := make([]byte, 2000+len(got)), []int{0}, []conn.Endpoint{nil}
		n, err := list[0]([][]byte{packet}, sizes, from)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		require.Contains(t, []int{0, len(got)}, sizes[0], "whole, or held")
		require.NoError(t, b.Close())
		_, err = list[1]([][]byte{packet}, sizes, from)
		require.ErrorIs(t, err, net.ErrClosed)
	})
}

// retry is WireGuard's: RekeyTimeout.
const retry = 5 * time.Second

func TestCrossedHandshakes(t *testing.T) {
	for _, n := range []int{2, 8, 16} {
		for name, idle := range map[string]time.Duration{
			"at first contact": 0, "after four minutes in which nobody spoke": 4 * time.Minute,
		} {
			t.Run(fmt.Sprintf("%d nodes that all speak at once %s do not wait for WireGuard's retry", n, name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					_, all := mesh(t, n, true)
					defer shut(all)
					if idle > 0 {
						everybody(t, all)
						time.Sleep(idle)
					}
					took := everybody(t, all)
					t.Logf("the last packet arrived after %s", took)
					assert.Less(t, took, 20*latency)
				})
			})
			t.Run(fmt.Sprintf("control: %d nodes that all speak at once %s wait for it", n, name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					_, all := mesh(t, n, false)
					defer shut(all)
					if idle > 0 {
						everybody(t, all)
						time.Sleep(idle)
					}
					took := everybody(t, all)
					t.Logf("the last packet arrived after %s", took)
					assert.GreaterOrEqual(t, took, retry)
				})
			})
		}
	}
	t.Run("nor do two of which one begins a little later", func(t *testing.T) {
		for after := 100 * time.Microsecond; after < 4*latency; after += 100 * time.Microsecond {
			synctest.Test(t, func(t *testing.T) {
				_, all := mesh(t, 2, true)
				defer shut(all)
				all[0].say(all[1])
				time.Sleep(after)
				began := time.Now()
				all[1].say(all[0])
				<-all[0].arrived
				<-all[1].arrived
				require.Less(t, time.Since(began), 20*latency, "%s", after)
			})
		}
	})
	t.Run("a handshake that was lost costs the other one's no more than the hold", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			for range 8 { // whichever has the lower key
				e, all := mesh(t, 2, true)
				lost := false
				e.lose = func(from, _ string, m []byte) bool {
					if m[0] == 1 && !lost && from == all[0].port.own.DstToString() {
						lost = true
						return true
					}
					return false
				}
				took := everybody(t, all)
				assert.LessOrEqual(t, took, 220*time.Millisecond)
				shut(all)
			}
		})
	})
	t.Run("an hour of packets both ways sees no gap, and one handshake in two minutes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e, all := mesh(t, 2, true)
			defer shut(all)
			everybody(t, all)
			for range 3600 {
				time.Sleep(time.Second)
				require.Less(t, everybody(t, all), 20*latency)
			}
			assert.Less(t, e.count(1), 70)
		})
	})
	t.Run("nothing is sent that WireGuard did not send", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e, all := mesh(t, 2, true)
			defer shut(all)
			everybody(t, all)
			time.Sleep(time.Minute)
			assert.Equal(t, 2, e.count(1), "two beginnings that crossed")
			assert.Equal(t, 1, e.count(2), "one answer")
		})
	})
	t.Run("a bind that is closed and opened again goes on", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, all := mesh(t, 2, true)
			defer shut(all)
			everybody(t, all)
			for _, p := range all {
				require.NoError(t, p.device.BindUpdate())
			}
			assert.Less(t, everybody(t, all), 20*latency)
		})
	})
}
