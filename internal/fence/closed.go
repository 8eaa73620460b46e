package fence

import (
	"fmt"
	"net/netip"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// ClosedName is the table that stands on an enclave node between jobs.
const ClosedName = "enclave_closed"

// Streams are where slurmstepd takes the standard input and output of interactive jobs.
type Streams struct {
	Hosts []netip.Addr
	Ports PortRange // SrunPortRange of slurm.conf
}

// Closed is the fence of a node without a job: people's processes send nothing but to
// themselves, and nothing reaches the node but the inbound services. Streams are open on a node
// where no process of a person's is: slurmstepd connects them under the user's id before it asks
// the gate, and a refused srun would else end with status 0 and no reason [tried on 22.05]. The
// table has no counter, so that the node's closed state is the same text every time. It also keeps conntrack at work
// from boot on: a job's fence then knows the daemons' connections from their beginning.
//
// A stream of a step that outlives its enclave is reset, not rejected: a connection that stands takes an ICMP
// error for one that passes, and slurmstepd would wait for srun until Slurm drains the node.
//
// What the sockets of a job's killed processes have not got rid of, the kernel sends on for
// minutes, without a user id, and now that the tunnel is gone, in clear: their flows still have
// the job's mark and are dropped.
//
// Ours are the multicast groups of the node's daemons. The kernel repeats for seconds that a killed process has left its.
//
// All flows are tracked here, so an ICMP error gets in as related to one or not at all.
//
// A packet must pass all tables, so a job's fence replaces this one (see Up) and this one
// replaces the job's.
func Closed(uidMin uint32, inbound []Service, streams Streams, ours ...netip.Addr) (Table, error) {
	if uidMin == 0 {
		return Table{}, enclave.Refuse(CodePlan, enclave.FaultPolicy, "plan closed fence: smallest user id is 0: root would be fenced")
	}
	if err := checkServices(inbound, false); err != nil {
		return Table{}, enclave.Refuse(CodePlan, enclave.FaultPolicy, "plan closed fence: %s", err)
	}
	if len(streams.Hosts) > 0 && !streams.Ports.valid() {
		return Table{}, enclave.Refuse(CodePlan, enclave.FaultPolicy, "plan closed fence: SrunPortRange %s", streams.Ports)
	}
	if err := checkGroups(ours); err != nil {
		return Table{}, enclave.Refuse(CodePlan, enclave.FaultPolicy, "plan closed fence: %s", err)
	}
	p := &plan{in: Input{SrunPorts: streams.Ports}}
	out := append([]Rule{rule(Accept, "", oif(loopback))}, toGroups()...)
	out = append(out, p.each("submit_host", hosts(streams.Hosts), Target4, Target6, rule(Accept, "", p.srunPorts()))...)
	people := Match{Key: UID, From: uidMin, To: ^uint32(0)}
	out = append(out, rule(Reset, "", num(Protocol, protoTCP), people), rule(Reject, "", people))
	out = append(out, orphans(uidMin, "")...)
	in := []Rule{rule(Accept, "", iif(loopback)), rule(Accept, "", Match{Key: ConnKnown})}
	in = append(in, p.inbound(inbound)...)
	in = append(in, rule(Drop, ""))
	return Table{Name: ClosedName, Sets: p.sets, Chains: append(groups(ours, ""), []Chain{
		{Name: "out", Type: "filter", Hook: "output", Priority: priorityFilter, Rules: out},
		{Name: "in", Type: "filter", Hook: "input", Priority: priorityFilter, Rules: in},
		{Name: "post", Type: "filter", Hook: "postrouting", Priority: priorityLast, Rules: []Rule{
			rule(Drop, "", anyJob(), notOif(loopback)), rule(Drop, "", Match{Key: ConnInvalid}, notOif(loopback)),
		}},
	}...)}, nil
}

// String is "61001-61200".
func (r PortRange) String() string { return fmt.Sprintf("%d-%d", r.First, r.Last) }

func (r PortRange) valid() bool { return r.First != 0 && r.Last >= r.First }
