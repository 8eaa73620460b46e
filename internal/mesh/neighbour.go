package mesh

import (
	"bytes"
	"net/netip"
	"slices"
)

// Neighbour is a node that this node probes through the tunnel.
type Neighbour struct {
	Node    string
	Address netip.Addr
	// First says that this node sends first. Of two nodes that start a handshake in the same
	// moment each forgets its own start when it answers the other's, and both wait five
	// seconds: so one of each pair, that with the lower key, starts and the other holds back
	// for a moment.
	First bool
}

// Neighbours are the next and the previous node on the ring of all keys: two, or one in a job
// of two nodes, or none. Each node is the neighbour of its neighbours.
func (d Device) Neighbours(own [32]byte) []Neighbour {
	n := len(d.Tunnel.Peers)
	if n == 0 {
		return nil
	}
	at, _ := slices.BinarySearchFunc(d.Tunnel.Peers, own, func(p Peer, k [32]byte) int { return bytes.Compare(p.Key[:], k[:]) })
	ring := []int{at % n, (at + n - 1) % n}
	if n == 1 {
		ring = ring[:1]
	}
	return d.neighbours(own, ring)
}

// Pairs are all peers, in an order that starts behind this node on the ring: where every node
// goes through its pairs at the same pace, no node is asked by many at once.
func (d Device) Pairs(own [32]byte) []Neighbour {
	n := len(d.Tunnel.Peers)
	at, _ := slices.BinarySearchFunc(d.Tunnel.Peers, own, func(p Peer, k [32]byte) int { return bytes.Compare(p.Key[:], k[:]) })
	var order []int
	for i := range n {
		order = append(order, (at+i)%n)
	}
	return d.neighbours(own, order)
}

func (d Device) neighbours(own [32]byte, which []int) []Neighbour {
	var out []Neighbour
	for _, i := range which {
		p := d.Tunnel.Peers[i]
		// The route decides which of the peer's addresses can be reached from here.
		r := slices.IndexFunc(d.Routes, func(r Route) bool { return slices.Contains(p.Addresses, r.To) })
		if r < 0 {
			continue
		}
		out = append(out, Neighbour{Node: p.Node, Address: d.Routes[r].To, First: bytes.Compare(own[:], p.Key[:]) < 0})
	}
	return out
}
