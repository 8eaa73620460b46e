package fence

// ICMP's errors, and IPv6's neighbour and multicast listener discovery.
const (
	icmpUnreachable  = 3
	icmpTimeExceeded = 11
	icmpParameter    = 12
	icmp6FirstError  = 1
	icmp6LastError   = 4
	icmp6FirstND     = 130
	icmp6LastND      = 136

	protoTCP      = 6
	protoUDP      = 17
	protoFragment = 44

	plainIPv4 = 0x45 // version 4, no options: the ports stand where the keys look for them
)

// quote is a packet that an error says we have sent, as far as it tells whose it was.
type quote struct {
	proto  uint32
	target bool // the port is the target's, else the source's
	port   uint16
}

// untracked are the flows that notrackOut keeps out of conntrack: of errors about them conntrack knows
// nothing, and path MTU discovery needs them. They are named without addresses, which nft can't
// look up in what an error quotes. That does not open a user's flows: on the UDP ports of WireGuard
// and of daemons no user can be, and of TCP's the kernel believes an error only if it quotes a sequence number
// that is under way, which the tunnel hides.
func (p *plan) untracked() []quote {
	list := []quote{
		{proto: protoUDP, port: p.in.WireGuardPort},
		{proto: protoTCP, port: p.in.Slurmd.Port},
	}
	for _, s := range p.in.Inbound {
		if s.Port >= firstOfUsers {
			continue
		}
		q := quote{proto: protoTCP, port: s.Port}
		if s.Proto == "udp" {
			q.proto = protoUDP
		}
		list = append(list, q)
	}
	for _, s := range p.servers() {
		list = append(list, quote{proto: protoTCP, target: true, port: s.Port})
	}
	return list
}

// errors lets in the errors about untracked flows. Those about other flows outside the tunnel are
// "related" as long as conntrack knows the flow. An error that it cannot place may be about a flow of the
// tunnel that was silent for longer than conntrack remembers: the underlay would end it or shrink
// its route.
func (p *plan) errors() []Rule {
	var out []Rule
	for _, kind := range []uint32{icmpUnreachable, icmpTimeExceeded, icmpParameter} {
		out = append(out, Rule{Match: []Match{num(ICMP4Type, kind)}, Do: Jump, To: "errors4"})
	}
	return append(out, Rule{Match: []Match{{Key: ICMP6Type, From: icmp6FirstError, To: icmp6LastError}}, Do: Jump, To: "errors6"})
}

// errors4 reads quoted IPv4 headers. One with options is nobody's of us: the ports would stand
// elsewhere.
func (p *plan) errors4() Chain {
	c := Chain{Name: "errors4"}
	for _, q := range p.untracked() {
		port := num(Quoted4Source, uint32(q.port))
		if q.target {
			port.Key = Quoted4Target
		}
		c.Rules = append(c.Rules, rule(Accept, "", num(Quoted4Head, plainIPv4), num(Quoted4Proto, q.proto), port))
	}
	return c
}

// errors6 reads quoted IPv6 headers without extensions, and with one for fragments of WireGuard's,
// which the sender cuts when the path has narrowed before.
func (p *plan) errors6() Chain {
	c := Chain{Name: "errors6"}
	for _, q := range p.untracked() {
		port := num(Quoted6Source, uint32(q.port))
		if q.target {
			port.Key = Quoted6Target
		}
		c.Rules = append(c.Rules, rule(Accept, "", num(Quoted6Next, q.proto), port))
	}
	c.Rules = append(c.Rules, rule(Accept, "", num(Quoted6Next, protoFragment),
		num(Quoted6FragmentNext, protoUDP), num(Quoted6FragmentSource, uint32(p.in.WireGuardPort))))
	return c
}
