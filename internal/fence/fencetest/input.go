package fencetest

import (
	"net/netip"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/fence"
)

// Prefixes reads prefixes; one that is none is a fault of the test.
func Prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// Addresses reads addresses; one that is none is a fault of the test.
func Addresses(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// Input is a job with a bit of everything: testdata/both-families.nft of package fence is its table.
func Input() fence.Input {
	return fence.Input{
		Key: enclave.JobKey{Cluster: "c", Job: 4711}, UID: 2001, UIDMin: 1000,
		SubUIDs: []enclave.UIDRange{{Start: 165536, Count: 65536}},
		Device:  "enc4711", FwMark: 0xa8001267, Mark: 0xac001267, WireGuardPort: 51820,
		Slurmctld:   fence.Server{Addresses: Addresses("10.0.0.100", "fd00::100"), Port: 6817},
		Slurmd:      fence.Server{Addresses: Addresses("10.0.0.2", "10.0.0.1", "fd00::1", "fd00::2"), Port: 6818},
		Enclaved:    fence.Server{Addresses: Addresses("10.0.0.101"), Port: 6830},
		SubmitHost:  Addresses("10.0.0.102", "fd00::102"),
		SrunPorts:   fence.PortRange{First: 61001, Last: 61200},
		Interactive: true,
		Services: []fence.Service{
			{Name: "dns", Proto: "udp", Port: 53, Addresses: Prefixes("10.0.0.53/32", "fd00::53/128")},
			{Name: "licence", Proto: "tcp", Port: 27000, Addresses: Prefixes("10.0.0.64/26", "10.0.0.54/32", "fd00:1::/32", "10.0.0.70/32", "10.0.0.128/25", "fd00:1:2::/48")},
		},
		Groups: Addresses("239.2.11.71", "ff05::1:3"),
		Inbound: []fence.Service{
			{Name: "ssh", Proto: "tcp", Port: 22},
			{Name: "all", Proto: "tcp", Port: 80, Addresses: Prefixes("0.0.0.0/0", "10.1.0.0/16", "::/0")},
			{Name: "monitoring", Proto: "tcp", Port: 9100, Addresses: Prefixes("10.0.0.103/24", "255.255.255.0/24", "fd00::/8")},
		},
	}
}

// Streams are where that job's srun listens.
func Streams() fence.Streams {
	return fence.Streams{Hosts: Input().SubmitHost, Ports: Input().SrunPorts}
}
