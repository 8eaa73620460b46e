//go:build e2e

package e2e_test

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// What an attempt of the job's user has to come to.
const (
	tunnelled = "tunnel"  // the echo comes, and came through the tunnel
	refusal   = "refused" // the fence says no, and counts it
	denied    = "denied"  // the kernel does not let the user ask
	nowhere   = "nowhere" // there is no way out of where it is
	silent    = "quoted"  // through the tunnel, and the other end says no
	named     = "clear"   // it is in the clear, and the report says so
)

// leakAttempt is one line of the list.
type leakAttempt struct {
	name   string
	expect string
	role   leakRole
	// program runs on the first node instead of a role, in the batch step; id is the attempt's.
	program func(s *leakSide, id string) leakRequest
	// interactive is a command line on the submit host that brings its own job.
	interactive string
	// beside runs on the second node at the same time.
	beside []string
	// byOther makes the attempt in the other enclave, another user's.
	byOther bool
	// login makes the attempt beside the steps, as a login by ssh does: steps have no_new_privs.
	login bool
	// boxed runs the role in a network namespace that root has joined to the node's network.
	boxed bool
	// byRoot makes the control root's: without root's help nobody gets so far on any machine.
	byRoot bool
	// encrypted says that the control shows no text: bytes outside the tunnel are what counts.
	encrypted bool
	// says is what the program writes when all was well; "" where its exit status tells.
	says string
	// installed says that the program is of a package that only this machine's own root has.
	installed bool
	// without is a protocol that some kernels do not speak.
	without int
}

func udp(to string) leakRole { return leakRole{Proto: "udp", To: to} }
func tcp(to string) leakRole { return leakRole{Proto: "tcp", To: to} }

func (r leakRole) via(words ...string) leakRole { r.Via = words; return r }
func (r leakRole) with(option string) leakRole  { r.Option = option; return r }
func (r leakRole) from(address string) leakRole { r.From = address; return r }
func (r leakRole) bound(device string) leakRole { r.Device = device; return r }
func (r leakRole) of(size int) leakRole         { r.Size = size; return r }
func (r leakRole) marked(mark int) leakRole     { r.Mark = mark; return r }
func (r leakRole) held() leakRole               { r.Held = leakHolder; return r }
func proto(name, to string) leakRole            { return leakRole{Proto: name, To: to} }
func at(name, expect string, role leakRole) leakAttempt {
	return leakAttempt{name: name, expect: expect, role: role}
}
func (a leakAttempt) ifSpoken(protocol int) leakAttempt { a.without = protocol; return a }
func (a leakAttempt) controlledByRoot() leakAttempt     { a.byRoot = true; return a }
func (a leakAttempt) inOther() leakAttempt              { a.byOther = true; return a }
func (a leakAttempt) atLogin() leakAttempt              { a.login = true; return a }
func (a leakAttempt) inBox() leakAttempt                { a.boxed = true; return a }

// subUser runs a program as the seventh of the user's sub-uids, as containers do.
func subUser() []string {
	return []string{"unshare", "--user", "--map-root-user", "--map-auto", "--", "setpriv", "--reuid=7", "--clear-groups"}
}

// ownMark stands for the mark of WireGuard's own packets, which has the job's id in it.
const ownMark = -1

// capable is a program with the file capability cap_net_raw, as many sites have ping.
func capable() string { return leakProgram + "-capable" }

// fileCapability is struct vfs_cap_data of include/uapi/linux/capability.h, version 2, permitted and effective.
func fileCapability(number int) []byte {
	b := make([]byte, 20)
	binary.LittleEndian.PutUint32(b, 0x02000001)
	binary.LittleEndian.PutUint32(b[4:], 1<<number)
	return b
}

// toPeers are ways to the job's other node that must work and be hidden.
func toPeers() []leakAttempt {
	return []leakAttempt{
		at("TCP to the user's server on a peer", tunnelled, tcp("{peer}:7700")),
		at("UDP to the user's server on a peer", tunnelled, udp("{peer}:7700")),
		at("UDP in fragments", tunnelled, udp("{peer}:7700").of(8000)),
		at("TCP, 512 KiB, to a root-owned server and back", tunnelled, tcp("{peer}:7710").of(512<<10)),
		at("TCP to a root-owned server", tunnelled, tcp("{peer}:7710")),
		at("UDP to a root-owned server", tunnelled, udp("{peer}:7710")),
		at("UDP to a port where nobody listens: the error quotes it", silent, udp("{peer}:7799")),
		at("TCP to a peer, multipath", tunnelled, proto("mptcp", "{peer}:7700")).ifSpoken(unix.IPPROTO_MPTCP),
		at("TCP fast open", tunnelled, tcp("{peer}:7700").with("fastopen")),
		at("TCP from a sub-uid in a user namespace", tunnelled, tcp("{peer}:7700").via(subUser()...)).atLogin(),
		at("UDP from a sub-uid to a root-owned server", tunnelled, udp("{peer}:7710").via(subUser()...)).atLogin(),
		at("UDP on a socket opened before the prolog ended", tunnelled, udp("{peer}:7700").held()),
		at("TCP to a root-owned server on a connection from before the prolog ended", tunnelled, tcp("{peer}:7710").held()),
		at("TCP on IPv6 to a root-owned server on a connection from before the prolog ended", tunnelled, tcp("{peer6}:7710").held()),
		at("TCP on IPv6", tunnelled, tcp("{peer6}:7700")),
		at("UDP on IPv6", tunnelled, udp("{peer6}:7700")),
		at("UDP in fragments on IPv6", tunnelled, udp("{peer6}:7700").of(8000)),
		at("TCP on IPv6 to a root-owned server", tunnelled, tcp("{peer6}:7710")),
		at("UDP on IPv6 to a root-owned server", tunnelled, udp("{peer6}:7710")),
		at("UDP on IPv6 from a sub-uid", tunnelled, udp("{peer6}:7700").via(subUser()...)).atLogin(),
		at("TCP on the second network", tunnelled, tcp("{peer-b}:7700")),
		at("TCP on the second network on IPv6", tunnelled, tcp("{peer-b6}:7700")),
		at("UDP on the second network to a root-owned server", tunnelled, udp("{peer-b}:7710")),
		at("UDP to a root-owned server's second address, from the first: it answers from another", silent, udp("{peer-b}:7710").from("{here}:0")),
		at("TCP to a root-owned server's second address, from the first", tunnelled, tcp("{peer-b}:7710").from("{here}:0")),
	}
}

// besideTheTunnel are ways to the job's other node that nobody may take.
func besideTheTunnel() []leakAttempt {
	return []leakAttempt{
		at("UDP to a peer, SO_BINDTODEVICE", refusal, udp("{peer}:7700").bound("eth0")),
		at("TCP to a peer, SO_BINDTODEVICE", refusal, tcp("{peer}:7700").bound("eth0")),
		at("UDP on IPv6 to a peer, SO_BINDTODEVICE", refusal, udp("{peer6}:7700").bound("eth0")),
		at("UDP on the second network, SO_BINDTODEVICE", refusal, udp("{peer-b}:7700").bound("eth1")),
		at("UDP to a peer, IP_UNICAST_IF", refusal, udp("{peer}:7700").with("unicast-if")),
		at("UDP to a peer, IP_PKTINFO", refusal, udp("{peer}:7700").with("pktinfo")),
		at("UDP to a peer by way of another host (source route)", denied, udp("{peer}:7700").with("source-route:{outsider}")).controlledByRoot(),
		at("UDP on the second network on IPv6, SO_BINDTODEVICE", refusal, udp("{peer-b6}:7700").bound("eth1")),
		at("UDP on a network that nobody listed", refusal, udp("{peer-stray}:7700")),
		at("TCP on a network that nobody listed", refusal, tcp("{peer-stray}:7700")),
		at("UDP to a peer's link-local address", refusal, udp("{peer-ll}:7700")),
		at("TCP from slurmd's port to the user's server on slurmd's port, IPv6", refusal, tcp("{peer6}:6818").from("{here6}:6818")),
		at("UDP to a peer from a linked network namespace", refusal, udp("{peer}:7700")).inBox(),
		at("TCP to a peer by a sub-uid in a user namespace in a linked network namespace", refusal, tcp("{peer}:7700").via(subUser()...)).inBox(),
		at("TCP on IPv6 to a peer by a sub-uid in a user namespace in a linked network namespace", refusal, tcp("{peer6}:7700").via(subUser()...)).inBox(),
		at("UDP on IPv6 to a peer by a sub-uid in a user namespace in a linked network namespace", refusal, udp("{peer6}:7700").via(subUser()...)).inBox(),
		at("UDP to a peer, SO_MARK of WireGuard's own", denied, udp("{peer}:7700").marked(0x51)).controlledByRoot(),
		at("UDP to a peer, SO_MARK by a program with cap_net_raw, in a step", denied, udp("{peer}:7700").marked(ownMark).via(capable())).controlledByRoot(),
		at("UDP to a peer, SO_MARK of WireGuard's own by a program with cap_net_raw, bound to the card", refusal,
			udp("{peer}:7700").marked(ownMark).bound("eth0").via(capable())).atLogin(),
		at("UDP to an unlisted host, SO_MARK of WireGuard's own by a program with cap_net_raw", refusal,
			udp("{outsider}:7700").marked(ownMark).via(capable())).atLogin(),
		at("ping to a peer, SO_MARK of WireGuard's own by a program with cap_net_raw, bound to the card", refusal,
			proto("ping", "{peer}:0").marked(ownMark).bound("eth0").via(capable())).atLogin(),
		at("ping to an unlisted host, SO_MARK of WireGuard's own by a program with cap_net_raw", refusal,
			proto("ping", "{outsider}:0").marked(ownMark).via(capable())).atLogin(),
		at("raw IP to a peer, SO_MARK of WireGuard's own by a program with cap_net_raw, bound to the card", refusal,
			proto("raw", "{peer}:0").marked(ownMark).bound("eth0").via(capable())).atLogin(),
		at("UDP from a sub-uid, in a step", denied, udp("{peer}:7700").via(subUser()...)),
		at("raw IP to a peer", denied, proto("raw", "{peer}:0")).controlledByRoot(),
		at("a frame of one's own (AF_PACKET) to a peer", denied, proto("frame", "{peer}:0")).controlledByRoot(),
		at("raw IP to a peer, root in a user namespace", denied, proto("raw", "{peer}:0").via("unshare", "--user", "--map-root-user", "--")).controlledByRoot(),
		at("raw IP to a peer, root in user and network namespaces", nowhere,
			proto("raw", "{peer}:0").via("unshare", "--user", "--map-root-user", "--net", "--")).controlledByRoot(),
	}
}

// toOthers are ways to another enclave and to hosts that no list names.
func toOthers() []leakAttempt {
	return []leakAttempt{
		at("TCP to another enclave's node", refusal, tcp("{other}:7700")),
		at("UDP to another enclave's node", refusal, udp("{other}:7700")),
		at("UDP on IPv6 to another enclave's node", refusal, udp("{other6}:7700")),
		at("UDP on the second network to another enclave's node", refusal, udp("{other-b}:7700")),
		at("UDP to another enclave's WireGuard", refusal, udp("{other}:51820")),
		at("TCP to another enclave's slurmd", refusal, tcp("{other}:6818")),
		at("TCP from another enclave, of another user's", refusal, tcp("{mine}:7700")).inOther(),
		at("UDP from another enclave, of another user's", refusal, udp("{mine}:7700")).inOther(),
		at("UDP on IPv6 from another enclave, of another user's", refusal, udp("{mine6}:7700")).inOther(),
		at("TCP to an unlisted host", refusal, tcp("{outsider}:7700")),
		at("UDP to an unlisted host", refusal, udp("{outsider}:7700")),
		at("TCP on IPv6 to an unlisted host", refusal, tcp("{outsider6}:7700")),
		at("UDP on IPv6 to an unlisted host", refusal, udp("{outsider6}:7700")),
		at("multipath TCP to an unlisted host", refusal, proto("mptcp", "{outsider}:7700")).ifSpoken(unix.IPPROTO_MPTCP),
		at("UDP-Lite to an unlisted host", refusal, proto("udplite", "{outsider}:7700")).ifSpoken(unix.IPPROTO_UDPLITE),
		at("SCTP to an unlisted host", refusal, proto("sctp", "{outsider}:7700")).ifSpoken(unix.IPPROTO_SCTP),
		at("UDP from a sub-uid to an unlisted host", refusal, udp("{outsider}:7700").via(subUser()...)).atLogin(),
		at("UDP to an unlisted host on a socket opened before the prolog ended", refusal, udp("{outsider}:7700").held()),
		at("TCP to an unlisted host on a connection from before the prolog ended", refusal, tcp("{outsider}:7700").held()),
		at("UDP to an unlisted host from a linked network namespace", refusal, udp("{outsider}:7700")).inBox(),
		at("UDP from slurmd's port to an unlisted host", refusal, udp("{outsider}:7700").from(":6818")),
		at("UDP to slurmctld's port", refusal, udp("{controller}:6817")),
		at("TCP to the controller beside Slurm's ports", refusal, tcp("{controller}:7700")),
		at("broadcast", refusal, udp("10.93.255.255:7700").with("broadcast")),
		at("multicast", refusal, udp("224.0.0.251:7700").with("multicast-if")),
		at("multicast on IPv6", refusal, udp("[ff02::1%eth0]:7700")),
	}
}
