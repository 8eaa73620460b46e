package roster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"unicode/utf8"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// maxField bounds every field: no name, path or address list of ours is longer.
const maxField = 64 << 10

// EncodeHeader writes the tag and then every field as (u16 number, u32 length, value), big
// endian, all present, in this order. Two different headers never have the same bytes.
func EncodeHeader(h enclave.RosterHeader) ([]byte, error) {
	w := newWriter(tagHeader)
	w.text(h.Cluster)
	w.u32(h.Job)
	w.u32(h.Restart)
	w.u32(h.Epoch)
	w.text(h.SubmitHost)
	w.text(h.Tenant)
	w.text(h.Subtree)
	w.bytes(h.PolicyDigest[:])
	w.u32(h.Lifetime)
	w.flag(h.Simulated)
	w.flag(h.Weak)
	w.u32(h.Size)
	w.bytes(h.Root[:])
	if h.RootFID != (enclave.FID{}) { // a later field: headers without it are as they were published
		w.fid(h.RootFID)
	}
	return w.done("encode roster header")
}

// DecodeHeader reads what EncodeHeader wrote; anything else, one byte more included, is an error.
func DecodeHeader(b []byte) (enclave.RosterHeader, error) {
	var h enclave.RosterHeader
	r := newReader(tagHeader, b)
	h.Cluster = r.text()
	h.Job = r.u32()
	h.Restart = r.u32()
	h.Epoch = r.u32()
	h.SubmitHost = r.text()
	h.Tenant = r.text()
	h.Subtree = r.text()
	copy(h.PolicyDigest[:], r.exactly(len(h.PolicyDigest)))
	h.Lifetime = r.u32()
	h.Simulated = r.flag()
	h.Weak = r.flag()
	h.Size = r.u32()
	copy(h.Root[:], r.exactly(len(h.Root)))
	if r.err == nil && len(r.b) > 0 {
		h.RootFID = r.fid()
	}
	if err := r.done("decode roster header"); err != nil {
		return enclave.RosterHeader{}, err
	}
	return h, nil
}

// encodeLeaf is the canonical form of one peer, the input of its leaf hash.
func encodeLeaf(p enclave.Peer) ([]byte, error) {
	w := newWriter(tagLeaf)
	w.text(p.Node)
	var list []byte
	for _, a := range p.Addresses {
		list = append(list, w.address(a)...)
	}
	w.bytes(list)
	w.bytes(w.address(p.Endpoint.Addr()))
	w.bytes(binary.BigEndian.AppendUint16(nil, p.Endpoint.Port()))
	w.bytes(p.Key[:])
	return w.done("encode peer " + p.Node)
}

// writer numbers the fields itself, so their order in the code is their order on the wire.
type writer struct {
	b   []byte
	n   uint16
	err error
}

func newWriter(tag string) *writer { return &writer{b: []byte(tag)} }

func (w *writer) bytes(v []byte) {
	if len(v) > maxField {
		w.err = errors.Join(w.err, fmt.Errorf("field %d: %d bytes", w.n+1, len(v)))
		return
	}
	w.n++
	w.b = binary.BigEndian.AppendUint16(w.b, w.n)
	w.b = binary.BigEndian.AppendUint32(w.b, uint32(len(v))) // bounded by maxField
	w.b = append(w.b, v...)
}

func (w *writer) text(s string) {
	if !utf8.ValidString(s) {
		w.err = errors.Join(w.err, fmt.Errorf("field %d: not UTF-8", w.n+1))
	}
	w.bytes([]byte(s))
}

func (w *writer) u32(v uint32) { w.bytes(binary.BigEndian.AppendUint32(nil, v)) }

// fid is sequence, object and version.
func (w *writer) fid(f enclave.FID) {
	b := binary.BigEndian.AppendUint64(nil, f.Sequence)
	w.bytes(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, f.Object), f.Version))
}

func (w *writer) flag(v bool) {
	if v {
		w.bytes([]byte{1})
		return
	}
	w.bytes([]byte{0})
}

// address is one byte of length and the address. A zone names an interface of one host and
// means nothing to another, so it is refused.
func (w *writer) address(a netip.Addr) []byte {
	if !a.IsValid() || a.Zone() != "" || a.Is4In6() {
		w.err = errors.Join(w.err, fmt.Errorf("field %d: address %q", w.n+1, a))
		return nil
	}
	raw := a.AsSlice()
	return append([]byte{byte(len(raw))}, raw...)
}

func (w *writer) done(what string) ([]byte, error) {
	if w.err != nil {
		return nil, fmt.Errorf("%s: %w", what, w.err)
	}
	return w.b, nil
}

// reader is the strict inverse of writer: the first fault sticks, later reads give zero.
type reader struct {
	b   []byte
	n   uint16
	err error
}

func newReader(tag string, b []byte) *reader {
	if len(b) < len(tag) || string(b[:len(tag)]) != tag {
		return &reader{err: errors.New("wrong tag")}
	}
	return &reader{b: b[len(tag):]}
}

func (r *reader) fail(format string, args ...any) []byte {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
	return nil
}

func (r *reader) bytes() []byte {
	if r.err != nil {
		return nil
	}
	r.n++
	if len(r.b) < 6 {
		return r.fail("field %d: cut short", r.n)
	}
	number, size := binary.BigEndian.Uint16(r.b), binary.BigEndian.Uint32(r.b[2:])
	r.b = r.b[6:]
	if number != r.n {
		return r.fail("field %d: number %d", r.n, number)
	}
	if size > maxField || uint64(size) > uint64(len(r.b)) {
		return r.fail("field %d: %d bytes", r.n, size)
	}
	v := r.b[:size]
	r.b = r.b[size:]
	return v
}

func (r *reader) exactly(size int) []byte {
	v := r.bytes()
	if r.err == nil && len(v) != size {
		return r.fail("field %d: %d bytes, want %d", r.n, len(v), size)
	}
	return v
}

func (r *reader) text() string {
	v := r.bytes()
	if !utf8.Valid(v) {
		r.fail("field %d: not UTF-8", r.n)
	}
	return string(v)
}

func (r *reader) u32() uint32 {
	v := r.exactly(4)
	if r.err != nil {
		return 0
	}
	return binary.BigEndian.Uint32(v)
}

func (r *reader) fid() enclave.FID {
	const size = 16
	b := r.exactly(size)
	if r.err != nil {
		return enclave.FID{}
	}
	f := enclave.FID{Sequence: binary.BigEndian.Uint64(b), Object: binary.BigEndian.Uint32(b[8:]), Version: binary.BigEndian.Uint32(b[12:])}
	if f == (enclave.FID{}) {
		r.fail("field %d: a FID that names nothing", r.n)
	}
	return f
}

func (r *reader) flag() bool {
	v := r.exactly(1)
	if r.err != nil {
		return false
	}
	if v[0] > 1 {
		r.fail("field %d: flag %d", r.n, v[0])
	}
	return v[0] == 1
}

func (r *reader) done(what string) error {
	if r.err == nil && len(r.b) > 0 {
		r.fail("%d bytes too many", len(r.b))
	}
	if r.err != nil {
		return fmt.Errorf("%s: %w", what, r.err)
	}
	return nil
}
