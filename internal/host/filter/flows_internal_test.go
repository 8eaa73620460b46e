package filter

import (
	"testing"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/fence"
)

func attributes(t testing.TB, list ...netlink.Attribute) []byte {
	t.Helper()
	b, err := netlink.MarshalAttributes(list)
	require.NoError(t, err)
	return b
}

// message is one of ctnetlink about a TCP flow with mark 0xac001267, as the kernel writes it.
func message(t testing.TB) []byte {
	t.Helper()
	tuple := attributes(t,
		netlink.Attribute{Type: 1 | netlink.Nested, Data: attributes(t, netlink.Attribute{Type: 1, Data: []byte{127, 0, 0, 1}})},
		netlink.Attribute{Type: nl.CTA_TUPLE_PROTO | netlink.Nested, Data: attributes(t,
			netlink.Attribute{Type: nl.CTA_PROTO_NUM, Data: []byte{unix.IPPROTO_TCP}},
			netlink.Attribute{Type: nl.CTA_PROTO_SRC_PORT, Data: []byte{0x1b, 0x58}})})
	state := attributes(t, netlink.Attribute{Type: nl.CTA_PROTOINFO_TCP | netlink.Nested, Data: attributes(t,
		netlink.Attribute{Type: nl.CTA_PROTOINFO_TCP_STATE, Data: []byte{7}}, netlink.Attribute{Type: 2, Data: []byte{9}})})
	return append([]byte{unix.AF_INET, nl.NFNETLINK_V0, 0, 0}, attributes(t,
		netlink.Attribute{Type: nl.CTA_TUPLE_ORIG | netlink.Nested, Data: tuple},
		netlink.Attribute{Type: nl.CTA_TUPLE_REPLY | netlink.Nested, Data: tuple},
		netlink.Attribute{Type: nl.CTA_PROTOINFO | netlink.Nested, Data: state},
		netlink.Attribute{Type: nl.CTA_MARK, Data: []byte{0xac, 0, 0x12, 0x67}})...)
}

func TestParseFlow(t *testing.T) {
	f, err := parseFlow(message(t))
	require.NoError(t, err)
	assert.Equal(t, fence.Flow{Mark: 0xac001267, Protocol: unix.IPPROTO_TCP, TCPState: 7}, f)
	for name, bad := range map[string][]byte{
		"nothing":                        nil,
		"half a head":                    message(t)[:3],
		"an attribute that is cut off":   message(t)[:len(message(t))-5],
		"a mark of two bytes":            append([]byte{2, 0, 0, 0}, attributes(t, netlink.Attribute{Type: nl.CTA_MARK, Data: []byte{0xac, 0}})...),
		"an attribute shorter than none": {2, 0, 0, 0, 1, 0, 1, 0},
	} {
		t.Run(name+" is an error", func(t *testing.T) {
			_, err := parseFlow(bad)
			require.ErrorContains(t, err, "read flow")
		})
	}
}

func FuzzParseFlow(f *testing.F) {
	f.Add(message(f))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := parseFlow(b); err != nil {
			assert.ErrorContains(t, err, "read flow")
		}
	})
}
