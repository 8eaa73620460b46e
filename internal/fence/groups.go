package fence

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
)

// IGMP, and what of IPv6's listener discovery a host says itself: reports and goodbyes.
const (
	protoIGMP = 2

	igmpReport   = "22" // version 3: a list of records
	mldReport1   = 131
	mldDone      = 132
	mldReport2   = 143 // version 2: a list of records
	groupRecords = 8   // as many a report of the node's own may have
)

// igmpOld are the messages of versions 1 and 2 that name one group.
func igmpOld() []string { return []string{"12", "16", "17"} }

// solicited are the groups that neighbour discovery needs: ff02::1:ff00:0/104.
const solicited = "ff0200000000000000000001ff"

// raw compares bytes behind the network header.
func raw(offset int, hexadecimal string) Match {
	return Match{Key: Raw, From: uint32(offset), Name: hexadecimal}
}

// groups hold what the node tells the network's switches about multicast groups. A socket that joins a
// group has the kernel send its address, and those of the sources it wants, 16 bytes each, from
// a socket of the kernel's, which has no user: a job could write to the network that way. So a node reports
// its own groups only, and no sources: those that neighbour discovery needs, and those that the site lists for its daemons.
// Everything else, as queries, is dropped; what is left to a user are the last three bytes of
// a group of neighbour discovery.
func groups(listed []netip.Addr, counter string) []Chain {
	four, six := []string(nil), []string{solicited}
	for _, a := range listed {
		if b := a.AsSlice(); a.Is4() {
			four = append(four, hex.EncodeToString(b))
		} else {
			six = append(six, hex.EncodeToString(b))
		}
	}
	igmp, mld := Chain{Name: "groups4"}, Chain{Name: "groups6"}
	var records []Chain
	if len(four) > 0 {
		igmp.Rules = append(igmp.Rules, Rule{Match: []Match{raw(0, igmpReport)}, Do: Jump, To: "groups4_1"})
		records = listOf("groups4", 8, four)
	}
	for _, g := range four {
		for _, kind := range igmpOld() {
			igmp.Rules = append(igmp.Rules, rule(Accept, "", raw(0, kind), raw(4, g)))
		}
	}
	mld.Rules = append(mld.Rules, Rule{Match: []Match{num(ICMP6Type, mldReport2)}, Do: Jump, To: "groups6_1"})
	records = append(records, listOf("groups6", 20, six)...)
	for _, g := range six {
		mld.Rules = append(mld.Rules, rule(Accept, "", Match{Key: ICMP6Type, From: mldReport1, To: mldDone}, raw(8, g)))
	}
	igmp.Rules = append(igmp.Rules, rule(Drop, counter))
	mld.Rules = append(mld.Rules, rule(Drop, counter))
	return append(records, igmp, mld)
}

// listOf reads the records of a report, one chain for each place in the list: it is accepted where all are
// of these groups. Both protocols have the number of records at 6, the first one at 8, and in a record its lengths
// (of data and of sources, none of which may be there) at 1 and the group at 4.
func listOf(name string, size int, members []string) []Chain {
	var out []Chain
	for i := groupRecords - 1; i >= 0; i-- { // nft wants a chain before the jump to it
		at := 8 + i*size
		c := Chain{Name: fmt.Sprintf("%s_%d", name, i+1)}
		for _, g := range members {
			record := []Match{raw(at+1, "000000"+g)}
			if len(g) > 26 { // the kernel compares 16 bytes at once
				record = []Match{raw(at+1, "000000"), raw(at+4, g)}
			}
			c.Rules = append(c.Rules, Rule{Match: append(slices.Clone(record), raw(6, fmt.Sprintf("%04x", i+1))), Do: Accept})
			if i+1 < groupRecords {
				c.Rules = append(c.Rules, Rule{Match: record, Do: Jump, To: fmt.Sprintf("%s_%d", name, i+2)})
			}
		}
		out = append(out, c)
	}
	return out
}

// toGroups leads there what leaves by a device of the node's own.
func toGroups(devices ...string) []Rule {
	var away []Match
	for _, d := range devices {
		away = append(away, notOif(d))
	}
	to := func(chain string, m Match) Rule {
		return Rule{Match: append([]Match{m}, away...), Do: Jump, To: chain}
	}
	return []Rule{
		to("groups4", num(Protocol, protoIGMP)),
		to("groups6", Match{Key: ICMP6Type, From: mldReport1, To: mldDone}), to("groups6", num(ICMP6Type, mldReport2)),
	}
}
