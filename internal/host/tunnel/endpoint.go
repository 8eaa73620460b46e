package tunnel

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// endpoint is a peer's address, in the kernel's form, too, and the own address that packets to it
// leave from: the one at which it last reached us. But for cleared it never changes.
type endpoint struct {
	netip.AddrPort
	raw     [unix.SizeofSockaddrInet6]byte
	length  uint32
	source  [unix.SizeofCmsghdr + unix.SizeofInet6Pktinfo + 4]byte // control message
	sized   int                                                    // of source, 0 for none
	from    netip.Addr
	cleared atomic.Bool // the source is void
}

func newEndpoint(a netip.AddrPort) *endpoint {
	a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	e := &endpoint{AddrPort: a}
	binary.BigEndian.PutUint16(e.raw[2:], a.Port())
	if a.Addr().Is4() {
		binary.NativeEndian.PutUint16(e.raw[:], unix.AF_INET)
		four := a.Addr().As4()
		copy(e.raw[4:], four[:])
		e.length = unix.SizeofSockaddrInet4
		return e
	}
	binary.NativeEndian.PutUint16(e.raw[:], unix.AF_INET6)
	six := a.Addr().As16()
	copy(e.raw[8:], six[:])
	if zone, err := strconv.ParseUint(a.Addr().Zone(), 10, 32); err == nil {
		binary.NativeEndian.PutUint32(e.raw[24:], uint32(zone))
	}
	e.length = unix.SizeofSockaddrInet6
	return e
}

// is says whether a packet from raw that arrived at source is of this endpoint.
func (e *endpoint) is(raw, source []byte) bool {
	return !e.cleared.Load() && bytes.Equal(e.raw[:e.length], raw) && bytes.Equal(e.source[:e.sized], source)
}

func (e *endpoint) setSource(source []byte) {
	if len(source) > len(e.source) {
		return
	}
	e.sized = copy(e.source[:], source)
	body := source[min(len(source), unix.SizeofCmsghdr):]
	switch {
	case len(body) == unix.SizeofInet4Pktinfo:
		e.from = netip.AddrFrom4([4]byte(body[4:8])) // ipi_spec_dst
	case len(body) == unix.SizeofInet6Pktinfo:
		e.from = netip.AddrFrom16([16]byte(body[:16]))
	}
}

// control is the control message to send with, empty without a source.
func (e *endpoint) control() []byte {
	if e.cleared.Load() {
		return nil
	}
	return e.source[:e.sized]
}

// ClearSrc implements conn.Endpoint.
func (e *endpoint) ClearSrc() { e.cleared.Store(true) }

// SrcIP implements conn.Endpoint.
func (e *endpoint) SrcIP() netip.Addr {
	if e.cleared.Load() {
		return netip.Addr{}
	}
	return e.from
}

// SrcToString implements conn.Endpoint.
func (e *endpoint) SrcToString() string {
	if a := e.SrcIP(); a.IsValid() {
		return a.String()
	}
	return ""
}

// DstIP implements conn.Endpoint.
func (e *endpoint) DstIP() netip.Addr { return e.Addr() }

// DstToString implements conn.Endpoint.
func (e *endpoint) DstToString() string { return e.String() }

// DstToBytes implements conn.Endpoint.
func (e *endpoint) DstToBytes() []byte {
	b, _ := e.MarshalBinary() // never fails
	return b
}
