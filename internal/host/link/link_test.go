package link_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/host/link"
	"github.com/slurm-enclave/slurm-enclave/internal/host/nettest"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
)

// complaints counts what the kernel's log says of this program's messages (syslog(2)).
func complaints(t *testing.T) int {
	t.Helper()
	b := make([]byte, 1<<20)
	size, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, b)
	require.NoError(t, err)
	return bytes.Count(b[:size], fmt.Appendf(nil, "netlink: '%s'", filepath.Base(os.Args[0])))
}

func TestRules(t *testing.T) {
	n := nettest.New(t, "n")
	k := link.Kernel{}
	before := complaints(t)
	for _, want := range []mesh.Rule{
		{Family: mesh.IPv4, Priority: 9900, Mark: 0xac000007, Mask: 0xffffffff, Table: 268435463},
		{Family: mesh.IPv4, Priority: 9901, Mark: 0xac000007, UIDs: enclave.UIDRange{Start: 2001, Count: 1}, TCPPort: 6818, Table: 254},
		{Family: mesh.IPv6, Priority: 9901, Mark: 0xac000007, UIDs: enclave.UIDRange{Start: 165536, Count: 65536}, TCPPort: 6818, Table: 254},
		{Family: mesh.IPv6, Priority: 9902, Mark: 0xac000007, UIDs: enclave.UIDRange{Start: 2001, Count: 1}, Table: 268435463},
	} {
		t.Run(want.String(), func(t *testing.T) {
			count := func() (found int) {
				n.Must(func() error {
					have, err := k.Rules(t.Context())
					for _, r := range have {
						if r == want {
							found++
						}
					}
					return err
				})
				return found
			}
			n.Must(func() error { return k.AddRule(t.Context(), want) })
			assert.Equal(t, 1, count(), "read as it was written")
			require.Error(t, n.Do(func() error { return k.AddRule(t.Context(), want) }), "no second one")
			n.Must(func() error { return k.DeleteRule(t.Context(), want) })
			assert.Zero(t, count())
		})
	}
	assert.LessOrEqual(t, complaints(t), before, "an administrator reads that log")
}

func TestLinks(t *testing.T) {
	n := nettest.New(t, "n")
	sw := nettest.New(t, "sw")
	n.Join(sw, 1400, "10.77.0.1/24", "fd77::1/64")
	k := link.Kernel{}
	t.Run("absence is an answer", func(t *testing.T) {
		n.Must(func() error {
			l, err := k.Link(t.Context(), "enc1")
			if l.Name != "" {
				return fmt.Errorf("found %s", l)
			}
			return err
		})
		n.Must(func() error { return k.DeleteLink(t.Context(), "enc1") })
	})
	t.Run("a keeper's device is not made here", func(t *testing.T) {
		require.Error(t, n.Do(func() error {
			return k.PutLink(t.Context(), mesh.Link{Name: "enc1", Driver: mesh.DriverKeeper, MTU: 1420})
		}))
	})
	t.Run("a device of another kind is read as what it is", func(t *testing.T) {
		n.Run("ip", "link", "add", "enc1", "type", "bridge")
		n.Run("ip", "addr", "add", "10.1.0.1/32", "dev", "enc1")
		n.Must(func() error {
			l, err := k.Link(t.Context(), "enc1")
			if err == nil && (l.Driver != "bridge" || l.Up || len(l.Addresses) != 1) {
				err = fmt.Errorf("read %s", l)
			}
			return err
		})
	})
	t.Run("the control socket that a killed keeper left goes with the device", func(t *testing.T) {
		n.Run("sh", "-c", "mkdir -p /var/run/wireguard; touch /var/run/wireguard/enc1.sock /var/run/wireguard/other.sock")
		n.Must(func() error { return k.DeleteLink(t.Context(), "enc1") })
		assert.Equal(t, "other.sock\n", n.Run("ls", "/var/run/wireguard"))
		n.Run("rm", "/var/run/wireguard/other.sock")
		n.Must(func() error { return k.DeleteLink(t.Context(), "enc1") })
		require.Error(t, n.Do(func() error { _, err := os.Stat("/var/run/wireguard"); return err }))
	})
	t.Run("the path's MTU is the interface's", func(t *testing.T) {
		n.Must(func() error {
			mtu, err := link.UnderlayMTU([]netip.Addr{netip.MustParseAddr("10.77.0.2"), netip.MustParseAddr("fd77::2")})
			if err == nil && mtu != 1400 {
				err = fmt.Errorf("mtu %d", mtu)
			}
			return err
		})
		require.Error(t, n.Do(func() error { _, err := link.UnderlayMTU([]netip.Addr{netip.MustParseAddr("192.0.2.1")}); return err }))
	})
}
