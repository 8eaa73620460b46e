package api

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"github.com/slurm-enclave/slurm-enclave/internal/claim"
)

// Types of a body. Evidence is bytes that are no text: in JSON it would be a third longer, and reading
// it would cost enclaved as much as a tenth of its judgement.
const (
	TypeJSON   = "application/json"
	TypeBinary = "application/octet-stream"
)

const tagBody = "slurm-enclave/announcement-body/v1"

// maxAddresses bounds the addresses that one node may announce.
const maxAddresses = 64

// MarshalBinary writes the tag and every field as (u32 length, value), big endian, in the order of
// the struct.
func (a Announcement) MarshalBinary() ([]byte, error) {
	if len(a.Addresses) > maxAddresses {
		return nil, fmt.Errorf("encode announcement: %d addresses, at most %d", len(a.Addresses), maxAddresses)
	}
	w := binaryWriter{b: make([]byte, 0, 1024+len(a.Keys.HPKE)+len(a.Evidence.Report)+len(a.Evidence.Certificates))}
	w.b = append(w.b, tagBody...)
	w.text(a.Job.Cluster)
	w.number(a.Job.Job)
	w.number(a.Job.Restart)
	w.text(a.Node)
	w.number(a.Epoch)
	w.number(uint32(a.Purpose))
	w.bytes(a.Nonce[:])
	w.bytes(a.Keys.WireGuard[:])
	w.bytes(a.Keys.Ed25519[:])
	w.bytes(a.Keys.HPKE)
	w.number(uint32(len(a.Addresses))) // at most maxAddresses
	for _, x := range a.Addresses {
		w.address(x)
	}
	w.address(a.Endpoint)
	w.bytes(a.Evidence.Report)
	w.bytes(a.Evidence.Certificates)
	w.text(a.Evidence.Provider)
	w.bytes(a.Signature)
	return w.b, w.err
}

// UnmarshalBinary reads what MarshalBinary wrote; one byte more or less is an error. The evidence
// shares b's memory, everything else has its own.
func (a *Announcement) UnmarshalBinary(b []byte) error {
	r := binaryReader{b: b}
	if string(r.take(len(tagBody))) != tagBody {
		return errors.New("decode announcement: it is none of this release")
	}
	var out Announcement
	out.Job.Cluster = string(r.bytes())
	out.Job.Job = r.number()
	out.Job.Restart = r.number()
	out.Node = string(r.bytes())
	out.Epoch = r.number()
	purpose := r.number()
	out.Purpose = claim.Purpose(purpose) // #nosec G115 -- checked below
	r.exactly(out.Nonce[:])
	r.exactly(out.Keys.WireGuard[:])
	r.exactly(out.Keys.Ed25519[:])
	out.Keys.HPKE = slices.Clone(r.bytes())
	count := r.number()
	if purpose > 255 || count > maxAddresses {
		return fmt.Errorf("decode announcement: purpose %d with %d addresses", purpose, count)
	}
	for range count {
		var x netip.Addr
		r.address(&x)
		out.Addresses = append(out.Addresses, x)
	}
	r.address(&out.Endpoint)
	out.Evidence.Report = r.bytes()
	out.Evidence.Certificates = r.bytes()
	out.Evidence.Provider = string(r.bytes())
	out.Signature = slices.Clone(r.bytes())
	if r.err == nil && len(r.b) > 0 {
		r.err = fmt.Errorf("%d bytes too many", len(r.b))
	}
	if r.err != nil {
		return fmt.Errorf("decode announcement: %w", r.err)
	}
	*a = out
	return nil
}

// ReadBody reads a body of at most limit bytes, size being its length if the caller said it, or -1.
func ReadBody(r io.Reader, size, limit int64) ([]byte, error) {
	if size < 0 {
		size = limit + 1
		r = io.LimitReader(r, size)
		b, err := io.ReadAll(r)
		if err == nil && int64(len(b)) > limit {
			err = fmt.Errorf("read body: over %d bytes", limit)
		}
		return b, err
	}
	if size > limit {
		return nil, fmt.Errorf("read body: over %d bytes", limit)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("read body: %w", err)
	}
	return b, nil
}

// binaryWriter appends fields.
type binaryWriter struct {
	b   []byte
	err error
}

func (w *binaryWriter) bytes(v []byte) {
	if len(v) > MaxBody {
		w.err = errors.Join(w.err, fmt.Errorf("encode announcement: a field of %d bytes", len(v)))
		return
	}
	w.b = binary.BigEndian.AppendUint32(w.b, uint32(len(v))) // at most MaxBody
	w.b = append(w.b, v...)
}

func (w *binaryWriter) text(s string) { w.bytes([]byte(s)) }

func (w *binaryWriter) number(v uint32) { w.b = binary.BigEndian.AppendUint32(w.b, v) }

func (w *binaryWriter) address(a interface{ MarshalText() ([]byte, error) }) {
	b, err := a.MarshalText()
	w.err = errors.Join(w.err, err)
	w.bytes(b)
}

// binaryReader is the inverse: the first fault sticks, later reads give nothing.
type binaryReader struct {
	b   []byte
	err error
}

func (r *binaryReader) take(n int) []byte {
	if r.err != nil || n > len(r.b) {
		if r.err == nil {
			r.err = errors.New("cut short")
		}
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *binaryReader) number() uint32 {
	v := r.take(4)
	if v == nil {
		return 0
	}
	return binary.BigEndian.Uint32(v)
}

func (r *binaryReader) bytes() []byte {
	n := r.number()
	if int64(n) > int64(len(r.b)) {
		n = uint32(len(r.b)) + 1 // more than there is, also where an int has 32 bits
	}
	return r.take(int(n))
}

func (r *binaryReader) exactly(to []byte) {
	v := r.bytes()
	if r.err == nil && len(v) != len(to) {
		r.err = fmt.Errorf("a field of %d bytes, want %d", len(v), len(to))
	}
	copy(to, v)
}

// address reads a text that is the one way to write what it says.
func (r *binaryReader) address(to interface {
	UnmarshalText(b []byte) error
	MarshalText() ([]byte, error)
},
) {
	text := r.bytes()
	if r.err != nil {
		return
	}
	if r.err = to.UnmarshalText(text); r.err != nil {
		return
	}
	again, err := to.MarshalText()
	if err != nil || string(again) != string(text) {
		r.err = fmt.Errorf("address %.64q is written in another way", text)
	}
}
