package fence

import (
	"fmt"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// ClosedName is the table that stands on an enclave node between jobs.
const ClosedName = "enclave_closed"

// Closed is the fence of a node without a job: people's processes send nothing but to
// themselves, and nothing reaches the node but the inbound services. It has no counter, so
// that the node's closed state is the same text every time. It also keeps conntrack at work
// from boot on: a job's fence then knows the daemons' connections from their beginning.
//
// A packet must pass all tables, so a job's fence replaces this one (see Up) and this one
// replaces the job's.
func Closed(uidMin uint32, inbound []Service) (Table, error) {
	if uidMin == 0 {
		return Table{}, enclave.Refuse(CodePlan, enclave.FaultPolicy, "plan closed fence: smallest user id is 0: root would be fenced")
	}
	if err := checkServices(inbound, false); err != nil {
		return Table{}, enclave.Refuse(CodePlan, enclave.FaultPolicy, "plan closed fence: %s", err)
	}
	p := &plan{}
	in := []Rule{rule(Accept, "", iif(loopback)), rule(Accept, "", Match{Key: ConnKnown})}
	in = append(in, p.inbound(inbound)...)
	in = append(in, rule(Drop, ""))
	return Table{Name: ClosedName, Sets: p.sets, Chains: []Chain{
		{Name: "out", Type: "filter", Hook: "output", Priority: priorityFilter, Rules: []Rule{
			rule(Accept, "", oif(loopback)),
			rule(Reject, "", Match{Key: UID, From: uidMin, To: ^uint32(0)}),
		}},
		{Name: "in", Type: "filter", Hook: "input", Priority: priorityFilter, Rules: in},
	}}, nil
}

// String is "61001-61200".
func (r PortRange) String() string { return fmt.Sprintf("%d-%d", r.First, r.Last) }
