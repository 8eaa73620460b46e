package filter

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/fence"
)

const reg = 1

// field is where a key stands in a packet.
type field struct {
	family byte // 0: both
	proto  byte // 0: any
	base   expr.PayloadBase
	offset uint32
	size   uint32
}

// fields is a table of constants: the headers of IPv4, IPv6, TCP, UDP and ICMP.
var fields = map[fence.Key]field{
	fence.TCPSource:  {0, unix.IPPROTO_TCP, expr.PayloadBaseTransportHeader, 0, 2},
	fence.TCPTarget:  {0, unix.IPPROTO_TCP, expr.PayloadBaseTransportHeader, 2, 2},
	fence.UDPSource:  {0, unix.IPPROTO_UDP, expr.PayloadBaseTransportHeader, 0, 2},
	fence.UDPTarget:  {0, unix.IPPROTO_UDP, expr.PayloadBaseTransportHeader, 2, 2},
	fence.TCPBareSyn: {0, unix.IPPROTO_TCP, expr.PayloadBaseTransportHeader, 13, 1},
	fence.Source4:    {unix.NFPROTO_IPV4, 0, expr.PayloadBaseNetworkHeader, 12, 4},
	fence.Target4:    {unix.NFPROTO_IPV4, 0, expr.PayloadBaseNetworkHeader, 16, 4},
	fence.Source6:    {unix.NFPROTO_IPV6, 0, expr.PayloadBaseNetworkHeader, 8, 16},
	fence.Target6:    {unix.NFPROTO_IPV6, 0, expr.PayloadBaseNetworkHeader, 24, 16},
	fence.ICMP4Type:  {unix.NFPROTO_IPV4, unix.IPPROTO_ICMP, expr.PayloadBaseTransportHeader, 0, 1},
	fence.ICMP6Type:  {unix.NFPROTO_IPV6, unix.IPPROTO_ICMPV6, expr.PayloadBaseTransportHeader, 0, 1},

	fence.Quoted4Head:           {0, 0, expr.PayloadBaseTransportHeader, 8, 1},
	fence.Quoted4Proto:          {0, 0, expr.PayloadBaseTransportHeader, 17, 1},
	fence.Quoted4Source:         {0, 0, expr.PayloadBaseTransportHeader, 28, 2},
	fence.Quoted4Target:         {0, 0, expr.PayloadBaseTransportHeader, 30, 2},
	fence.Quoted6Next:           {0, 0, expr.PayloadBaseTransportHeader, 14, 1},
	fence.Quoted6Source:         {0, 0, expr.PayloadBaseTransportHeader, 48, 2},
	fence.Quoted6Target:         {0, 0, expr.PayloadBaseTransportHeader, 50, 2},
	fence.Quoted6FragmentNext:   {0, 0, expr.PayloadBaseTransportHeader, 48, 1},
	fence.Quoted6FragmentSource: {0, 0, expr.PayloadBaseTransportHeader, 56, 2},
}

// compile translates a rule into nftables' expressions.
func compile(r fence.Rule, sets map[string]uint32) ([]expr.Any, error) {
	var out []expr.Any
	for _, m := range r.Match {
		e, err := match(m, sets)
		if err != nil {
			return nil, err
		}
		out = append(out, e...)
	}
	if r.Counter != "" {
		out = append(out, &expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: r.Counter})
	}
	v, err := verdict(r)
	return append(out, v...), err
}

func verdict(r fence.Rule) ([]expr.Any, error) {
	value := func() expr.Any { return &expr.Immediate{Register: reg, Data: native(r.Mark)} }
	switch r.Do {
	case "":
		return nil, nil
	case fence.Accept:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}, nil
	case fence.Drop:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}, nil
	case fence.Jump:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: r.To}}, nil
	case fence.Notrack:
		return []expr.Any{&expr.Notrack{}}, nil
	case fence.Reject:
		return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH}}, nil
	case fence.Reset:
		return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}, nil
	case fence.SetMark:
		return []expr.Any{value(), &expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: reg}}, nil
	case fence.SetConnMark:
		return []expr.Any{value(), &expr.Ct{Key: expr.CtKeyMARK, SourceRegister: true, Register: reg}}, nil
	default:
		return nil, fmt.Errorf("unknown verdict %q", r.Do)
	}
}

func match(m fence.Match, sets map[string]uint32) ([]expr.Any, error) {
	op := expr.CmpOpEq
	if m.Not {
		op = expr.CmpOpNeq
	}
	switch m.Key {
	case fence.InDevice:
		return []expr.Any{load(expr.MetaKeyIIFNAME), cmp(op, device(m.Name))}, nil
	case fence.OutDevice:
		return []expr.Any{load(expr.MetaKeyOIFNAME), cmp(op, device(m.Name))}, nil
	case fence.PacketMark:
		return []expr.Any{load(expr.MetaKeyMARK), cmp(op, native(m.From))}, nil
	case fence.ConnMark:
		out := []expr.Any{&expr.Ct{Key: expr.CtKeyMARK, Register: reg}}
		if m.Mask != 0 {
			out = append(out, and(native(m.Mask)))
		}
		return append(out, cmp(op, native(m.From))), nil
	case fence.ConnDirection:
		return []expr.Any{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg}, cmp(op, []byte{byte(m.From)})}, nil
	case fence.ConnKnown:
		known := native(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)
		return []expr.Any{&expr.Ct{Key: expr.CtKeySTATE, Register: reg}, and(known), cmp(expr.CmpOpNeq, native(0))}, nil
	case fence.ConnInvalid:
		return []expr.Any{&expr.Ct{Key: expr.CtKeySTATE, Register: reg}, and(native(expr.CtStateBitINVALID)), cmp(expr.CmpOpNeq, native(0))}, nil
	case fence.Protocol:
		return []expr.Any{load(expr.MetaKeyL4PROTO), cmp(op, []byte{byte(m.From)})}, nil
	case fence.Raw:
		want, err := hex.DecodeString(m.Name)
		if err != nil || len(want) == 0 {
			return nil, fmt.Errorf("no bytes: %q", m)
		}
		return []expr.Any{
			&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: m.From, Len: uint32(len(want))}, cmp(op, want),
		}, nil
	case fence.UID:
		return uid(m), nil
	default:
		return payload(m, op, sets)
	}
}

// uid compares a user id. The kernel has it in the machine's byte order; an order of size
// needs the network's.
func uid(m fence.Match) []expr.Any {
	out := []expr.Any{load(expr.MetaKeySKUID)}
	if m.To == 0 || m.To == m.From {
		return append(out, cmp(expr.CmpOpEq, native(m.From)))
	}
	out = append(out, &expr.Byteorder{SourceRegister: reg, DestRegister: reg, Op: expr.ByteorderHton, Len: 4, Size: 4},
		cmp(expr.CmpOpGte, binary.BigEndian.AppendUint32(nil, m.From)))
	if m.To != ^uint32(0) {
		out = append(out, cmp(expr.CmpOpLte, binary.BigEndian.AppendUint32(nil, m.To)))
	}
	return out
}

func payload(m fence.Match, op expr.CmpOp, sets map[string]uint32) ([]expr.Any, error) {
	f, ok := fields[m.Key]
	if !ok {
		return nil, fmt.Errorf("unknown key %q", m.Key)
	}
	var out []expr.Any
	if f.family != 0 {
		out = append(out, load(expr.MetaKeyNFPROTO), cmp(expr.CmpOpEq, []byte{f.family}))
	}
	if f.proto != 0 {
		out = append(out, load(expr.MetaKeyL4PROTO), cmp(expr.CmpOpEq, []byte{f.proto}))
	}
	out = append(out, &expr.Payload{DestRegister: reg, Base: f.base, Offset: f.offset, Len: f.size})
	switch {
	case m.Key == fence.TCPBareSyn:
		const syn, ack = 0x02, 0x10
		return append(out, and([]byte{syn | ack}), cmp(op, []byte{syn})), nil
	case m.Name != "":
		id, ok := sets[m.Name]
		if !ok {
			return nil, fmt.Errorf("no set %q", m.Name)
		}
		return append(out, &expr.Lookup{SourceRegister: reg, SetName: m.Name, SetID: id, Invert: m.Not}), nil
	case m.To == 0 || m.To == m.From:
		return append(out, cmp(op, big(m.From, f.size))), nil
	case m.Not:
		return nil, fmt.Errorf("%q: a range can't be inverted", m)
	default:
		return append(out, cmp(expr.CmpOpGte, big(m.From, f.size)), cmp(expr.CmpOpLte, big(m.To, f.size))), nil
	}
}

func load(key expr.MetaKey) expr.Any { return &expr.Meta{Key: key, Register: reg} }

func cmp(op expr.CmpOp, data []byte) expr.Any { return &expr.Cmp{Op: op, Register: reg, Data: data} }

func and(mask []byte) expr.Any {
	return &expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask))}
}

func native(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

func big(n, size uint32) []byte { return binary.BigEndian.AppendUint32(nil, n)[4-size:] }

// device is an interface name as the kernel compares it: padded with zeros to its full size.
func device(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}
