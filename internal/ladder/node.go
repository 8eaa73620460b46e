package ladder

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

const installFix = "follow the install guide: this is not a node of cpu-sev yet"

// kernelRows are wireguard to cgroup.
func (f Facts) kernelRows() []Row {
	k := f.Kernel
	cgroup := pass("cgroup", k.Cgroup+": processes of a job can be told from others")
	if k.Cgroup == "" {
		cgroup = warn("cgroup", "neither cgroup v2 nor the freezer of v1 is mounted", "boot with the unified cgroup hierarchy; Slurm's proctrack/cgroup needs one")
	}
	return []Row{
		f.wireguardRow(), f.tunRow(),
		probeRow("nftables", k.NFTables, "a fence was put in and read back", "enable CONFIG_NF_TABLES_INET, NFT_CT and NFT_REJECT, or load nf_tables"),
		probeRow("mounts", k.Mounts, "open_tree, mount_setattr and move_mount work", "boot Linux 5.12 or later"),
		cgroup,
	}
}

func probeRow(name string, p Probe, works, fix string) Row {
	switch {
	case !p.Tried:
		return warn(name, "not tried: "+or(p.Reason, "only root can"), rootFix)
	case p.Works:
		return pass(name, works)
	}
	return fail(name, or(p.Reason, "does not work"), fix)
}

func (f Facts) wireguardRow() Row {
	k := f.Kernel
	row := probeRow("wireguard", k.WireGuard, "the kernel's", "load the module wireguard")
	if row.Result == Fail && k.TUN.Works {
		row.Result = Warn
		row.Reason = "not in the kernel: enclave-keeper carries the tunnel, and it is slower"
	}
	return row
}

func (f Facts) tunRow() Row {
	k := f.Kernel
	row := probeRow("tun", k.TUN, "/dev/net/tun opens", "load the module tun")
	if row.Result == Fail && k.WireGuard.Works {
		return none("tun", "not needed: the kernel has WireGuard")
	}
	return row
}

// slurmRows are marker to slurm.conf. On a machine that is not marked as an enclave node nothing
// of it is a failure yet.
func (f Facts) slurmRows() []Row {
	if f.kind() == host && !f.Slurm.Marker {
		const guests = "its guests' matter"
		var rows []Row
		for _, name := range []string{"marker", "config", "slurmd", "gate", "slurm.conf"} {
			rows = append(rows, none(name, guests))
		}
		return rows
	}
	rows := []Row{f.markerRow(), f.configRow(), f.slurmdRow()}
	if f.Slurm.Slurmd {
		rows = append(rows, refusalRow("gate", f.Slurm.Gate, "slurmd loads enclave.so of this release"), f.confRow())
	} else {
		rows = append(rows, none("gate", "needs slurmd"), none("slurm.conf", "needs slurmd"))
	}
	if !f.Slurm.Marker {
		for i := range rows {
			if rows[i].Result == Fail {
				rows[i].Result = Warn
			}
		}
	}
	return rows
}

func refusalRow(name string, r *enclave.Refusal, good string) Row {
	if r == nil {
		return pass(name, good)
	}
	return fail(name, r.Reason, r.Fix)
}

func (f Facts) markerRow() Row {
	if !f.Slurm.Marker {
		return warn("marker", "/etc/slurm-enclave/enclave-node is not there: slurmd starts tasks here without asking for a GO", installFix)
	}
	return refusalRow("marker", f.Slurm.MarkerBad, "this is an enclave node")
}

func (f Facts) configRow() Row {
	if f.Slurm.ConfigError != "" {
		return fail("config", f.Slurm.ConfigError, "correct enclave.yaml; the install guide says where from")
	}
	return pass("config", "enclave.yaml can be used")
}

func (f Facts) slurmdRow() Row {
	switch {
	case f.Slurm.Slurmd:
		return pass("slurmd", or(f.Slurm.Version, "version unknown"))
	case f.Slurm.Marker:
		return fail("slurmd", "there is no slurmd", "install Slurm's slurmd")
	}
	return warn("slurmd", "there is no slurmd", installFix)
}

// confRow looks at the settings of slurm.conf without which no job of cpu-sev gets through. The
// samples in etc/slurm.conf.d have them all.
func (f Facts) confRow() Row {
	const fix = "include etc/slurm.conf.d/enclave.conf in slurm.conf"
	s := f.Slurm
	switch {
	case s.ConfError != "":
		return warn("slurm.conf", s.ConfError, "make slurm.conf readable")
	case s.Conf == "":
		return warn("slurm.conf", "not found: a configless node, or SLURM_CONF names another", "set SLURM_CONF")
	}
	var wrong []string
	for _, check := range []func(Slurm) string{prologFlags, scripts, prologTimeout, srunPorts} {
		if reason := check(s); reason != "" {
			wrong = append(wrong, reason)
		}
	}
	if len(wrong) > 0 {
		return fail("slurm.conf", strings.Join(wrong, "; "), fix)
	}
	return pass("slurm.conf", s.Conf+": PrologFlags, Prolog, Epilog, PrologEpilogTimeout, SrunPortRange")
}

func prologFlags(s Slurm) string {
	var flags []string
	for flag := range strings.SplitSeq(s.Settings["prologflags"], ",") {
		flags = append(flags, strings.ToLower(strings.TrimSpace(flag)))
	}
	for _, need := range []string{"alloc", "contain"} {
		if !slices.Contains(flags, need) {
			return "PrologFlags needs Alloc and Contain"
		}
	}
	for _, bad := range []string{"serial", "nohold", "runinjob"} {
		if slices.Contains(flags, bad) {
			return "PrologFlags must not hold " + bad
		}
	}
	return ""
}

func scripts(s Slurm) string {
	var missing []string
	for _, name := range []string{"Prolog", "Epilog"} {
		if s.Settings[strings.ToLower(name)] == "" {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return ""
	}
	return strings.Join(missing, " and ") + " not set"
}

// leastTimeout is barrier (60 s) and teardown (30 s) together.
const leastTimeout = 90

func prologTimeout(s Slurm) string {
	text := s.Settings["prologepilogtimeout"]
	if text == "" {
		return ""
	}
	seconds, err := strconv.ParseUint(text, 10, 32)
	if err != nil || seconds == 65534 { // Slurm's way to write "no limit"
		return ""
	}
	if seconds < leastTimeout {
		return fmt.Sprintf("PrologEpilogTimeout is %d, below barrier and teardown (%d)", seconds, leastTimeout)
	}
	return ""
}

func srunPorts(s Slurm) string {
	text := s.Settings["srunportrange"]
	if text == "" {
		return "SrunPortRange not set"
	}
	first, last, ok := ports(strings.ReplaceAll(text, "-", " "))
	if !ok {
		return fmt.Sprintf("SrunPortRange %q is no range", text)
	}
	low, high, ok := ports(s.LocalPorts)
	if ok && first <= high && low <= last {
		return fmt.Sprintf("SrunPortRange %s meets net.ipv4.ip_local_port_range %d-%d", text, low, high)
	}
	return ""
}

// ports reads two numbers with space between them.
func ports(text string) (first, last uint64, ok bool) {
	words := strings.Fields(text)
	if len(words) != 2 {
		return 0, 0, false
	}
	first, err := strconv.ParseUint(words[0], 10, 16)
	if err != nil {
		return 0, 0, false
	}
	last, err = strconv.ParseUint(words[1], 10, 16)
	return first, last, err == nil && first <= last
}
