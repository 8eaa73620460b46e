package fence

// Priorities of the hooks: notrack before conntrack (-200), marks after it.
const (
	priorityRaw    = -300
	priorityMangle = -150
	priorityFilter = 0
	priorityMark   = 10
	priorityLast   = 300
)

// Every job's connection mark is of one family: its upper six bits.
const (
	MarkFamily = 0xac000000
	MarkMask   = 0xfc000000
)

// anyJob matches flows that belong, or belonged, into the tunnel of some job.
func anyJob() Match { return Match{Key: ConnMark, From: MarkFamily, Mask: MarkMask} }

// plan collects the sets that the chains' rules need.
type plan struct {
	in   Input
	sets []Set
}

func iif(name string) Match    { return Match{Key: InDevice, Name: name} }
func oif(name string) Match    { return Match{Key: OutDevice, Name: name} }
func notIif(name string) Match { return Match{Key: InDevice, Name: name, Not: true} }
func notOif(name string) Match { return Match{Key: OutDevice, Name: name, Not: true} }
func num(k Key, n uint32) Match {
	return Match{Key: k, From: n}
}

func rule(do Verdict, counter string, m ...Match) Rule {
	return Rule{Match: m, Counter: counter, Do: do}
}

// notrackIn keeps Slurm's, our and WireGuard's packets out of conntrack, which a user can fill
// to the brim with flows of its own. Within the tunnel everything is tracked: the mark needs it.
func (p *plan) notrackIn() Chain {
	rules := []Rule{
		rule(Accept, "", iif(loopback)), rule(Accept, "", iif(p.in.Device)),
		rule(Notrack, "", num(UDPTarget, uint32(p.in.WireGuardPort))),
		rule(Notrack, "", num(TCPTarget, uint32(p.in.Slurmd.Port))),
	}
	rules = append(rules, p.daemons(Source4, Source6, target)...)
	for _, s := range p.servers() {
		rules = append(rules, p.each(s.set, hosts(s.Addresses), Source4, Source6, rule(Notrack, "", num(TCPSource, uint32(s.Port))))...)
	}
	return Chain{Name: "notrack_in", Type: "filter", Hook: "prerouting", Priority: priorityRaw, Rules: rules}
}

// daemons keeps inbound services out of conntrack, too, so that ssh lets an admin in whatever a user
// does. Only those on ports that no user can have: what a user's own server answers must be known
// for an answer. Nor those that the job's other nodes ask: the question may have come through the tunnel, and only
// conntrack has the answer follow it.
func (p *plan) daemons(key4, key6 Key, port func(Service) Match) []Rule {
	var out []Rule
	for i, s := range p.in.Inbound {
		if s.Port >= firstOfUsers {
			continue
		}
		out = append(out, p.each(CounterSlurmd, hosts(p.in.Slurmd.Addresses), key4, key6, rule(Accept, "", port(s)))...)
		switch r := rule(Notrack, "", port(s)); {
		case len(s.Addresses) == 0:
			out = append(out, r)
		default:
			out = append(out, p.each(serviceSet("inbound", i), s.Addresses, key4, key6, r)...)
		}
	}
	return out
}

func (p *plan) notrackOut() Chain {
	rules := []Rule{
		rule(Accept, "", oif(loopback)), rule(Accept, "", oif(p.in.Device)),
		rule(Notrack, "", num(PacketMark, p.in.FwMark), num(UDPSource, uint32(p.in.WireGuardPort))),
		rule(Notrack, "", num(TCPSource, uint32(p.in.Slurmd.Port))),
	}
	rules = append(rules, p.daemons(Target4, Target6, origin)...)
	for _, s := range p.servers() {
		rules = append(rules, p.each(s.set, hosts(s.Addresses), Target4, Target6, rule(Notrack, "", num(TCPTarget, uint32(s.Port))))...)
	}
	return Chain{Name: "notrack_out", Type: "filter", Hook: "output", Priority: priorityRaw, Rules: rules}
}

// pre marks what comes out of the tunnel and drops what claims to belong to a flow of the
// tunnel but comes from elsewhere: the underlay could inject plaintext otherwise, since the
// addresses are the same and conntrack knows no interfaces. The packet's mark is for the site's reverse path
// filters behind ours: firewalld's of IPv6 (on by default) looks up the way back by it, and without it finds the underlay.
func (p *plan) pre() Chain {
	return Chain{Name: "pre", Type: "filter", Hook: "prerouting", Priority: priorityMangle, Rules: []Rule{
		{Match: []Match{iif(p.in.Device)}, Do: SetMark, Mark: p.in.Mark},
		{Match: []Match{iif(p.in.Device), num(ConnDirection, original)}, Do: SetConnMark, Mark: p.in.Mark},
		rule(Drop, CounterInjected, notIif(loopback), notIif(p.in.Device), num(ConnMark, p.in.Mark)),
	}}
}

// outRoute sends answers into the tunnel whose question came through it: servers of root's,
// resets and TIME_WAIT answers have no user id by which the policy rules would know them.
func (p *plan) outRoute() Chain {
	rules := []Rule{rule(Accept, "", num(PacketMark, p.in.FwMark))}
	daemons := rule(Jump, "", Match{Key: UID, To: p.in.UIDMin - 1}, num(ConnDirection, original))
	daemons.To = "calls"
	rules = append(rules, p.each(CounterSlurmd, hosts(p.in.Slurmd.Addresses), Target4, Target6, daemons)...)
	rules = append(rules, Rule{Match: []Match{num(ConnMark, p.in.Mark)}, Do: SetMark, Mark: p.in.Mark})
	return Chain{Name: "outroute", Type: "route", Hook: "output", Priority: priorityMangle, Rules: rules}
}

// calls are the flows that daemons begin towards peers. Those to a listed port stay outside. Others
// would be dropped by the peer's fence, and seen by the network before: they begin in the tunnel. Such is
// slurmstepd's connection to the user's srun for PMI-2, whose port is none of SrunPortRange, and the
// answer of a UDP server that is asked at one address and answers from another.
func (p *plan) calls() Chain {
	c := Chain{Name: "calls", Rules: []Rule{
		rule(Accept, "", num(TCPTarget, uint32(p.in.Slurmd.Port))), rule(Accept, "", p.srunPorts()),
	}}
	for _, s := range p.in.Inbound {
		c.Rules = append(c.Rules, rule(Accept, "", target(s)))
	}
	for _, begins := range []Match{{Key: TCPBareSyn}, {Key: UDPTarget, From: 1, To: 65535}} {
		c.Rules = append(c.Rules, Rule{Match: []Match{begins}, Do: SetConnMark, Mark: p.in.Mark})
	}
	return c
}

// user is what the job's user ids may send. Each way out has its counter.
func (p *plan) user() Chain {
	rules := []Rule{
		rule(Accept, CounterLoopback, oif(loopback)),
		rule(Accept, CounterTunnel, oif(p.in.Device)),
		// A user that listens on slurmd's port, where slurmd does not (IPv6), would answer and be
		// answered there in the clear: the port's flows are not tracked.
		rule(Reject, CounterRejected, num(TCPSource, uint32(p.in.Slurmd.Port))),
	}
	for _, s := range p.servers()[:2] { // the verifier is for root's programs only
		rules = append(rules, p.each(s.set, hosts(s.Addresses), Target4, Target6, rule(Accept, s.set, num(TCPTarget, uint32(s.Port))))...)
	}
	if p.in.Interactive {
		rules = append(rules, p.each("submit_host", hosts(p.in.SubmitHost), Target4, Target6, rule(Accept, CounterSubmitHost, p.srunPorts()))...)
	}
	for i, s := range p.in.Services {
		rules = append(rules, p.each(serviceSet("service", i), s.Addresses, Target4, Target6, rule(Accept, CounterServices, target(s)))...)
	}
	rules = append(rules, rule(Accept, CounterReplies,
		num(ConnDirection, reply), Match{Key: ConnMark, From: p.in.Mark, Not: true}))
	return Chain{Name: "user", Rules: rules}
}

// wireGuard are the tunnel's own packets. A program with CAP_NET_RAW can give its packets this mark and this port,
// and a user may run one, such as ping: where root's keeper sends them, its user id is wanted as well. Those of
// the kernel's WireGuard carry the user id of the socket whose data they hold.
func (p *plan) wireGuard() []Match {
	m := []Match{num(PacketMark, p.in.FwMark), num(UDPSource, uint32(p.in.WireGuardPort))}
	if p.in.Userspace {
		m = append(m, Match{Key: UID, To: p.in.UIDMin - 1})
	}
	return m
}

// out judges what leaves. WireGuard's packets are first.
func (p *plan) out() Chain {
	rules := []Rule{
		rule(Accept, CounterWireGuard, p.wireGuard()...),
	}
	rules = append(rules, toGroups(loopback, p.in.Device)...)
	for _, u := range users(p.in) {
		rules = append(rules, Rule{Match: []Match{{Key: UID, From: u.Start, To: u.Last()}}, Do: Jump, To: "user"})
	}
	rules = append(rules, rule(Reject, CounterRejected, Match{Key: UID, From: p.in.UIDMin, To: ^uint32(0)}))
	rules = append(rules, orphans(p.in.UIDMin, CounterRejected, notOif(loopback), notOif(p.in.Device))...)
	return Chain{Name: "out", Type: "filter", Hook: "output", Priority: priorityFilter, Rules: rules}
}

// Protocols whose closed sockets go on to send what was queued.
const (
	protoDCCP = 33
	protoSCTP = 132
)

// orphans stand behind the rules by user. A socket that is closed with data in its queue has no user id any more,
// and SCTP and DCCP have no state here to know it by, as TCP has: so of these what no daemon is known to send is dropped.
func orphans(uidMin uint32, counter string, away ...Match) []Rule {
	var out []Rule
	for _, proto := range []uint32{protoDCCP, protoSCTP} {
		out = append(out, rule(Accept, "", num(Protocol, proto), Match{Key: UID, To: uidMin - 1}),
			rule(Drop, counter, append([]Match{num(Protocol, proto)}, away...)...))
	}
	return out
}

// outMark marks the flows that begin here: those of the tunnel, and of the users' others what no rule of the site's has marked.
func (p *plan) outMark() Chain {
	rules := []Rule{{Match: []Match{oif(p.in.Device), num(ConnDirection, original)}, Do: SetConnMark, Mark: p.in.Mark}}
	for _, u := range users(p.in) {
		rules = append(rules, Rule{Do: SetConnMark, Mark: MarkOutside, Match: []Match{
			num(ConnMark, 0), num(ConnDirection, original), {Key: UID, From: u.Start, To: u.Last()},
		}})
	}
	return Chain{Name: "outmark", Type: "filter", Hook: "output", Priority: priorityMark, Rules: rules}
}

// input judges what arrives. The rules of the untracked ports know no state: to our listening
// port any packet may come, from another's listening port all but one that opens a connection.
func (p *plan) input() Chain {
	rules := []Rule{
		rule(Accept, "", iif(loopback)), rule(Accept, "", iif(p.in.Device)),
		rule(Accept, "", Match{Key: ConnKnown}, Match{Key: ConnMark, From: p.in.Mark, Not: true}),
		rule(Accept, "", num(UDPTarget, uint32(p.in.WireGuardPort))),
		rule(Accept, "", num(TCPTarget, uint32(p.in.Slurmd.Port))),
	}
	for _, s := range p.servers() {
		rules = append(rules, p.each(s.set, hosts(s.Addresses), Source4, Source6,
			rule(Accept, "", num(TCPSource, uint32(s.Port)), Match{Key: TCPBareSyn, Not: true}))...)
	}
	// srun inside the job listens: the controllers and the nodes' slurmstepd call it back.
	for _, s := range p.servers()[:2] {
		rules = append(rules, p.each(s.set, hosts(s.Addresses), Source4, Source6, rule(Accept, "", p.srunPorts()))...)
	}
	rules = append(rules, p.inbound(p.in.Inbound)...)
	rules = append(rules, p.errors()...)
	rules = append(rules, rule(Drop, CounterDropped))
	return Chain{Name: "in", Type: "filter", Hook: "input", Priority: priorityFilter, Rules: rules}
}

// forward: the node is no way into the tunnel for others, and none out of it. Nor is it one for a
// network namespace of the job's with a link that a setuid runtime made (Apptainer's fakeroot
// network): what comes from there has no user id on its way through the host's rules.
func (p *plan) forward() Chain {
	return Chain{Name: "forward", Type: "filter", Hook: "forward", Priority: priorityFilter, Rules: []Rule{rule(Drop, CounterForwarded)}}
}

// post stands behind all verdicts and, other than out, sees the device that a packet really
// leaves by: in the hook where outroute has sent it another way, the old one is still named.
//
// Without the tunnel's device (the keeper is dead) the routes of its table are gone, and what
// belongs to its flows would leave by the main table, root's answers and the last data of
// closed sockets as well, which have no user id any more: it is dropped, and what an earlier job's
// sockets still send with it. A reset for a flow that conntrack has just forgotten has no mark
// and is invalid. What is left of the
// job's users' and leaves outside the tunnel is counted, to check the other counters by.
func (p *plan) post() Chain {
	c := Chain{Name: "post", Type: "filter", Hook: "postrouting", Priority: priorityLast}
	c.Rules = append(c.Rules,
		rule(Drop, CounterEscaped, anyJob(), notOif(loopback), notOif(p.in.Device)),
		rule(Drop, CounterEscaped, Match{Key: ConnInvalid}, notOif(loopback), notOif(p.in.Device)))
	for _, u := range users(p.in) {
		c.Rules = append(c.Rules, rule("", CounterOutside,
			Match{Key: PacketMark, From: p.in.FwMark, Not: true}, notOif(loopback), notOif(p.in.Device),
			Match{Key: UID, From: u.Start, To: u.Last()}))
	}
	return c
}
