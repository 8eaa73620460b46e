package roster

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// maxUnpacked bounds what comes out of a packed list: 16,384 peers of 4 kB.
const maxUnpacked = 64 << 20

// Pack writes all peers for whoever fetches them: their canonical bytes, each after its length (u32),
// deflated. What repeats goes away with that; a peer's key of 32 bytes and a few more stay. Every
// node of a job gets the same bytes, so they are made once.
func Pack(peers []enclave.Peer) ([]byte, error) {
	var out bytes.Buffer
	z, err := flate.NewWriter(&out, flate.DefaultCompression)
	if err != nil {
		return nil, fmt.Errorf("pack peers: %w", err)
	}
	for _, p := range peers {
		leaf, bad := encodeLeaf(p)
		if bad != nil {
			return nil, fmt.Errorf("pack peers: %w", bad)
		}
		_, _ = z.Write(binary.BigEndian.AppendUint32(nil, uint32(len(leaf)))) // into memory; Close tells
		_, _ = z.Write(leaf)
	}
	if err = z.Close(); err != nil {
		return nil, fmt.Errorf("pack peers: %w", err)
	}
	return out.Bytes(), nil
}

// Unpack reads what Pack wrote. Nothing of it is believed before CheckPeers.
func Unpack(b []byte) ([]enclave.Peer, error) {
	in := &io.LimitedReader{R: flate.NewReader(bytes.NewReader(b)), N: maxUnpacked + 1}
	all, err := io.ReadAll(in)
	if err == nil && in.N <= 0 {
		err = fmt.Errorf("over %d bytes", maxUnpacked)
	}
	if err != nil {
		return nil, fmt.Errorf("unpack peers: %w", err)
	}
	peers := []enclave.Peer{}
	for len(all) > 0 {
		if len(all) < 4 || uint64(binary.BigEndian.Uint32(all)) > uint64(len(all)-4) {
			return nil, errors.New("unpack peers: cut short")
		}
		end := 4 + int(binary.BigEndian.Uint32(all))
		p, err := decodeLeaf(all[4:end])
		if err != nil {
			return nil, fmt.Errorf("unpack peer %d: %w", len(peers), err)
		}
		peers, all = append(peers, p), all[end:]
	}
	return peers, nil
}

// decodeLeaf reads what encodeLeaf wrote; anything else is an error.
func decodeLeaf(b []byte) (enclave.Peer, error) {
	var p enclave.Peer
	r := newReader(tagLeaf, b)
	p.Node = r.text()
	for list := r.bytes(); r.err == nil && len(list) > 0; {
		var a netip.Addr
		a, list = r.address(list)
		p.Addresses = append(p.Addresses, a)
	}
	a, rest := r.address(r.bytes())
	if len(rest) > 0 {
		r.fail("field %d: %d bytes too many", r.n, len(rest))
	}
	if port := r.exactly(2); r.err == nil {
		p.Endpoint = netip.AddrPortFrom(a, binary.BigEndian.Uint16(port))
	}
	copy(p.Key[:], r.exactly(len(p.Key)))
	if err := r.done("decode leaf"); err != nil {
		return enclave.Peer{}, err
	}
	return p, nil
}

// address reads one address off a list, as the writer's put it there.
func (r *reader) address(list []byte) (netip.Addr, []byte) {
	if r.err != nil {
		return netip.Addr{}, nil
	}
	if len(list) > 0 {
		if n := int(list[0]); (n == 4 || n == 16) && n < len(list) {
			a, _ := netip.AddrFromSlice(list[1 : 1+n])
			if !a.Is4In6() {
				return a, list[1+n:]
			}
		}
	}
	r.fail("field %d: no address", r.n)
	return netip.Addr{}, nil
}
