package fence

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Table is a whole nftables table of family inet. It prints itself in nft's own syntax, so
// that `nft -f` loads the text of the golden files as it stands.
type Table struct {
	Name     string
	Counters []string
	Sets     []Set
	Chains   []Chain
}

// Set is a set of addresses of one family: masked prefixes in order, none within another.
type Set struct {
	Name     string
	IPv6     bool
	Prefixes []netip.Prefix
}

// Interval says whether the set holds more than single hosts; nftables keeps the two apart.
func (s Set) Interval() bool {
	return slices.ContainsFunc(s.Prefixes, func(p netip.Prefix) bool { return !p.IsSingleIP() })
}

// String is the set in nft's syntax.
func (s Set) String() string {
	kind, flags, words := "ipv4_addr", "", []string(nil)
	if s.IPv6 {
		kind = "ipv6_addr"
	}
	if s.Interval() {
		flags = "\t\tflags interval\n"
	}
	for _, p := range s.Prefixes {
		word := p.String()
		if p.IsSingleIP() {
			word = p.Addr().String()
		}
		words = append(words, word)
	}
	return fmt.Sprintf("\tset %s {\n\t\ttype %s\n%s\t\telements = { %s }\n\t}\n", s.Name, kind, flags, strings.Join(words, ", "))
}

// Chain is a chain of rules. A chain without a hook is jumped to.
type Chain struct {
	Name     string
	Type     string // filter or route
	Hook     string // prerouting, input, forward, output or postrouting
	Priority int
	Rules    []Rule
}

// Rule is what a packet must match, all of it, and what is then done.
type Rule struct {
	Match   []Match
	Counter string // name of a counter of the table, or ""
	Do      Verdict
	To      string // chain that Jump goes to
	Mark    uint32 // value that SetMark and SetConnMark write
}

// Verdict is what a rule does.
type Verdict string

// The verdicts. The zero Verdict only counts.
const (
	Accept      Verdict = "accept"
	Drop        Verdict = "drop"
	Reject      Verdict = "reject"
	Reset       Verdict = "reject with tcp reset"
	Notrack     Verdict = "notrack"
	Jump        Verdict = "jump"
	SetMark     Verdict = "meta mark set"
	SetConnMark Verdict = "ct mark set"
)

// Key is the part of a packet that is compared.
type Key string

// The keys.
const (
	InDevice      Key = "iifname"
	OutDevice     Key = "oifname"
	PacketMark    Key = "meta mark"
	ConnMark      Key = "ct mark"
	ConnDirection Key = "ct direction"     // From 0: original, 1: reply
	ConnKnown     Key = "ct state"         // established or related; takes no value
	ConnInvalid   Key = "ct state invalid" // no flow that conntrack knows, and none that begins; takes no value
	UID           Key = "meta skuid"       // of the socket that sends
	TCPSource     Key = "tcp sport"
	TCPTarget     Key = "tcp dport"
	UDPSource     Key = "udp sport"
	UDPTarget     Key = "udp dport"
	TCPBareSyn    Key = "tcp flags" // SYN without ACK; takes no value
	Source4       Key = "ip saddr"
	Source6       Key = "ip6 saddr"
	Target4       Key = "ip daddr"
	Target6       Key = "ip6 daddr"
	ICMP4Type     Key = "icmp type"
	ICMP6Type     Key = "icmpv6 type"
	Protocol      Key = "meta l4proto"
	Raw           Key = "@th" // bytes behind the network header: From is where, Name is they in hexadecimal
)

// The keys of the packet that an ICMP error quotes behind its own head of eight bytes, for chains
// that only errors of the family get to.
const (
	Quoted4Head           Key = "@th,64,8" // version and length of the header
	Quoted4Proto          Key = "@th,136,8"
	Quoted4Source         Key = "@th,224,16" // port, behind a header without options
	Quoted4Target         Key = "@th,240,16"
	Quoted6Next           Key = "@th,112,8"
	Quoted6Source         Key = "@th,384,16" // port, behind a header without extensions
	Quoted6Target         Key = "@th,400,16"
	Quoted6FragmentNext   Key = "@th,384,8"
	Quoted6FragmentSource Key = "@th,448,16" // port, behind a fragment's extension
)

// Match compares one key with a name (of a device or a set) or with a range of numbers.
type Match struct {
	Key      Key
	Not      bool
	Name     string
	From, To uint32 // To 0: From alone
	Mask     uint32 // of ConnMark: the bits that count, 0 is all
}

// String is the match in nft's syntax.
func (m Match) String() string {
	not := ""
	if m.Not {
		not = "!= "
	}
	switch m.Key {
	case InDevice, OutDevice:
		return fmt.Sprintf("%s %s%q", m.Key, not, m.Name)
	case Source4, Source6, Target4, Target6:
		return fmt.Sprintf("%s %s@%s", m.Key, not, m.Name)
	case PacketMark, ConnMark:
		if m.Mask != 0 {
			return fmt.Sprintf("%s & %#08x == %#08x", m.Key, m.Mask, m.From)
		}
		return fmt.Sprintf("%s %s%#08x", m.Key, not, m.From)
	case Raw:
		return fmt.Sprintf("@th,%d,%d %s0x%s", 8*m.From, 4*len(m.Name), not, m.Name)
	case ConnDirection:
		return fmt.Sprintf("%s %s%s", m.Key, not, [...]string{"original", "reply"}[m.From&1])
	case ConnKnown:
		return "ct state established,related"
	case ConnInvalid:
		return "ct state invalid"
	case TCPBareSyn:
		if m.Not {
			return "tcp flags & (syn | ack) != syn"
		}
		return "tcp flags & (syn | ack) == syn"
	default:
		return fmt.Sprintf("%s %s%s", m.Key, not, m.numbers())
	}
}

func (m Match) numbers() string {
	switch {
	case m.To == 0 || m.To == m.From:
		return fmt.Sprint(m.From)
	case m.To == ^uint32(0):
		return fmt.Sprintf(">= %d", m.From)
	default:
		return fmt.Sprintf("%d-%d", m.From, m.To)
	}
}

// String is the rule in nft's syntax.
func (r Rule) String() string {
	var words []string
	for _, m := range r.Match {
		words = append(words, m.String())
	}
	if r.Counter != "" {
		words = append(words, fmt.Sprintf("counter name %q", r.Counter))
	}
	switch r.Do {
	case Jump:
		words = append(words, "jump "+r.To)
	case SetMark, SetConnMark:
		words = append(words, fmt.Sprintf("%s %#08x", r.Do, r.Mark))
	case "":
	default:
		words = append(words, string(r.Do))
	}
	return strings.Join(words, " ")
}

// String is the table in nft's syntax.
func (t Table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table inet %s {\n", t.Name)
	for _, c := range t.Counters {
		fmt.Fprintf(&b, "\tcounter %s {\n\t}\n", c)
	}
	for _, s := range t.Sets {
		b.WriteString(s.String())
	}
	for _, c := range t.Chains {
		fmt.Fprintf(&b, "\tchain %s {\n", c.Name)
		if c.Hook != "" {
			fmt.Fprintf(&b, "\t\ttype %s hook %s priority %d; policy accept;\n", c.Type, c.Hook, c.Priority)
		}
		for _, r := range c.Rules {
			fmt.Fprintf(&b, "\t\t%s\n", r)
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}
