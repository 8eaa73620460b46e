package monitor_test

import (
	"context"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/monitor"
	"github.com/slurm-enclave/slurm-enclave/internal/host/nettest"
)

func TestChanges(t *testing.T) {
	n := nettest.New(t, "n")
	n.Run("ip", "link", "add", "enc7", "type", "veth", "peer", "name", "other")
	n.Run("nft", "add", "table", "inet", "enclave_7")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var words <-chan struct{}
	n.Must(func() (err error) {
		words, err = monitor.Changes(ctx, monitor.Of{Filter: "enclave_7", Routes: 77, Device: "enc7"})
		return err
	})
	told := func(atMost time.Duration) bool {
		select {
		case _, ok := <-words:
			return ok
		case <-time.After(atMost):
			return false
		}
	}
	for _, change := range []string{
		"nft add table inet site", "nft add chain inet site x", "nft add table ip enclave_7", "nft delete table inet site",
		"ip link set other mtu 1400", "ip route add 10.9.0.0/16 dev lo table 9",
	} {
		n.Run("sh", "-c", change)
		assert.False(t, told(50*time.Millisecond), "%s is none of the enclave's", change)
	}
	for _, change := range []string{
		"nft add chain inet enclave_7 x", "nft add rule inet enclave_7 x accept", "nft add set inet enclave_7 s '{ type ipv4_addr; }'",
		"nft add element inet enclave_7 s '{ 10.0.0.1 }'", "nft flush ruleset",
		"ip rule add pref 5 lookup 9", "ip -6 rule add pref 5 lookup 9", "ip rule del pref 5",
		"ip link set enc7 up", "ip addr add 10.7.0.1/32 dev enc7", "ip route add 10.7.0.2/32 dev enc7 table 77", "ip route flush table 77",
		"echo 1 >/proc/sys/net/ipv4/conf/enc7/rp_filter", "ip link set enc7 mtu 1400", "ip link del enc7",
	} {
		n.Run("sh", "-c", change)
		assert.True(t, told(5*time.Second), "%s", change)
		for told(50 * time.Millisecond) { // a command may be several changes
		}
	}
	cancel()
	_, open := <-words
	assert.False(t, open, "the end is told")
}

func TestConcerned(t *testing.T) {
	of := monitor.Of{Filter: "enclave_7", Routes: 77, Device: "enc7"}
	for name, data := range map[string][]byte{
		"empty": nil, "cut short": {1, 0}, "a header alone": {1, 0, 0, 0},
		"an attribute that is longer than the message": {1, 0, 0, 0, 255, 0, 1, 0},
	} {
		for _, kind := range []netlink.HeaderType{unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_DELTABLE, unix.RTM_DELROUTE, unix.RTM_DELLINK, unix.RTM_DELRULE} {
			assert.True(t, of.Concerned(netlink.Message{Header: netlink.Header{Type: kind}, Data: data}), "%s of kind %d is not understood, and is news", name, kind)
		}
	}
	own, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: 1, Data: []byte("enclave_7\x00")}})
	require.NoError(t, err)
	longer, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: 1, Data: []byte("enclave_71\x00")}})
	require.NoError(t, err)
	for want, attributes := range map[bool][]byte{true: own, false: longer} {
		m := netlink.Message{Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_DELTABLE}}
		m.Data = append([]byte{unix.NFPROTO_INET, 0, 0, 0}, attributes...)
		assert.Equal(t, want, of.Concerned(m))
	}
}

func FuzzConcerned(f *testing.F) {
	f.Add(uint16(unix.NFNL_SUBSYS_NFTABLES<<8), []byte{1, 0, 0, 0, 8, 0, 1, 0, 'x', 0, 0, 0})
	f.Add(uint16(unix.RTM_NEWLINK), make([]byte, 40))
	f.Fuzz(func(_ *testing.T, kind uint16, data []byte) {
		monitor.Of{Filter: "x"}.Concerned(netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(kind)}, Data: data})
	})
}
