package doctor_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/doctor"
	"github.com/slurm-enclave/slurm-enclave/internal/doctor/doctortest"
	"github.com/slurm-enclave/slurm-enclave/internal/ladder"
)

// onNode makes the site an enclave node's.
func onNode(s *doctor.Site) { s.Node, s.Host = true, "n1.hpc.example.org" }

func breakagesOfNodes() map[string]breakage {
	const (
		whole    = "\x00"
		nftables = "/etc/nftables.conf"
		stop     = "/etc/systemd/system/nftables.service.d/slurm-enclave.conf"
	)
	firewall := func(rules string) string {
		return "table inet filter {\n\tchain input {\n\t\ttype filter hook input priority 0; policy drop;\n" + rules + "\n\t}\n}\n"
	}
	return map[string]breakage{
		"a marker that others could take away": {change: func(s *doctor.Site) {
			onNode(s)
			f := s.Files.(doctortest.Files) //nolint:forcetypeassert // it is
			f.Insecure = []string{"/etc/slurm-enclave/enclave-node"}
			s.Files = f
		}, code: "E055", fix: "chown root:root /etc/slurm-enclave/enclave-node"},
		"a file system that users can enter": {change: func(s *doctor.Site) {
			onNode(s)
			f := s.Files.(doctortest.Files) //nolint:forcetypeassert // it is
			f.Exposed = []string{"/mnt/site"}
			s.Files = f
		}, code: "E301", fix: "chmod 0700 /mnt/site"},
		"a host that slurm.conf does not know":     {change: func(s *doctor.Site) { s.Node, s.Host = true, "blade7" }, code: "E048", fix: "NodeHostname=blade7"},
		"a marker on a node of another partition":  {change: func(s *doctor.Site) { s.Node, s.Host = true, "c2" }, code: "E048", fix: "add c2 to Nodes"},
		"a node that is not closed at boot":        {file: "/etc/systemd/system/slurmd.service.requires/enclave-host.service", from: whole, change: onNode, code: "E051", fix: "systemctl enable enclave-host.service"},
		"modules that a user's socket() loads":     {file: "/etc/modprobe.d/slurm-enclave.conf", from: "install tipc ", to: "# install tipc ", change: onNode, code: "E052", fix: "modprobe.d/slurm-enclave.conf"},
		"a handler of core dumps":                  {file: "/proc/sys/kernel/core_pattern", to: "|/usr/lib/systemd/systemd-coredump %P\n", change: onNode, code: "E053", fix: "sysctl.d/slurm-enclave.conf"},
		"core dumps in a directory of the node":    {file: "/proc/sys/kernel/core_pattern", to: "/var/crash/core.%p\n", change: onNode, code: "E053", fix: "sysctl.d/slurm-enclave.conf"},
		"the nftables.conf of the distribution":    {file: nftables, from: "table inet filter\ndelete table inet filter\n", to: "flush ruleset\n", change: onNode, code: "E049", fix: "/etc/nftables.conf line 3, for each"},
		"a file of it that flushes":                {file: nftables, from: "table inet filter\n", to: "include \"nftables.d/flush.nft\"\ntable inet filter\n", change: flushing, code: "E049", fix: "/etc/nftables.d/flush.nft line 1, for each"},
		"the nftables.service of the distribution": {file: stop, from: whole, change: onNode, code: "E049", fix: "ExecStop= with nothing behind it"},
		"a drop-in that flushes again":             {file: stop, to: "[Service]\nExecStop=\nExecStop=/usr/sbin/nft flush ruleset\n", change: onNode, code: "E049", fix: "ExecStop="},
		"untracked packets dropped":                {file: nftables, to: firewall("ct state untracked drop"), change: onNode, code: "E050", fix: "take it out of /etc/nftables.conf line 4"},
		"untracked packets dropped among others":   {file: nftables, to: firewall("ct state { invalid, untracked } counter drop"), change: onNode, code: "E050", fix: "established, related, untracked"},
		"untracked packets dropped by a map":       {file: nftables, to: firewall("ct state vmap { established : accept, untracked : drop }"), change: onNode, code: "E050", fix: "untracked"},
		"answers by their state alone":             {file: nftables, to: firewall("ct state established,related accept"), change: onNode, code: "E050", fix: "write in /etc/nftables.conf line 4: ct state { established, related, untracked } accept"},
		"answers by their state alone, in a map":   {file: nftables, to: firewall("ct state vmap { established : accept, related : accept, invalid : drop }"), change: onNode, code: "E050", fix: "untracked"},
		"the same with iptables":                   {file: "/etc/iptables/rules.v4", to: "*filter\n:INPUT DROP [0:0]\n-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\nCOMMIT\n", change: persistent, code: "E050", fix: "write in /etc/iptables/rules.v4 line 3"},
		"a last rule of iptables that rejects":     {file: "/etc/iptables/rules.v6", to: "*filter\n-A INPUT -m state --state ESTABLISHED -j ACCEPT\n-A INPUT -j REJECT\n", change: persistent, code: "E050", fix: "write in /etc/iptables/rules.v6 line 2"},
	}
}

// flushing has a file that nftables.conf includes.
func flushing(s *doctor.Site) {
	onNode(s)
	s.Files.(doctortest.Files).Text["/etc/nftables.d/flush.nft"] = "flush ruleset\n" //nolint:forcetypeassert // it is
}

// persistent is a node with iptables in place of nftables.
func persistent(s *doctor.Site) {
	onNode(s)
	f := s.Files.(doctortest.Files).Text //nolint:forcetypeassert // it is
	delete(f, "/etc/systemd/system/sysinit.target.wants/nftables.service")
	f["/etc/systemd/system/multi-user.target.wants/netfilter-persistent.service"] = ""
}

func breakagesOfRest() map[string]breakage {
	token := func(text string) func(s *doctor.Site) {
		return func(s *doctor.Site) {
			s.Config.Slurm.Driver, s.Config.Slurm.Rest = "rest", config.Rest{URL: "http://127.0.0.1:6820", User: "enclave", TokenFile: "/etc/slurm-enclave/slurm.token"}
			if text != "" {
				s.Files.(doctortest.Files).Text["/etc/slurm-enclave/slurm.token"] = text //nolint:forcetypeassert // it is
			}
		}
	}
	const types = "AuthAltTypes=auth/jwt\nSlurmUser"
	return map[string]breakage{
		"a socket that is not there": {change: func(s *doctor.Site) {
			s.Config.Slurm.Driver, s.Config.Slurm.Rest.Socket = "rest", "/run/slurmrestd/slurmrestd.sock"
		}, code: "E054", fix: "slurmrestd -a rest_auth/local unix:/run/slurmrestd/slurmrestd.sock"},
		"a slurmctld that takes no token": {change: token("eyJ"), code: "E054", fix: "AuthAltTypes=auth/jwt"},
		"no token":                        {file: conf, from: "SlurmUser", to: types, change: token(""), code: "E054", fix: "scontrol token username=enclave"},
		"an empty token":                  {file: conf, from: "SlurmUser", to: types, change: token("\n"), code: "E054", fix: "/etc/slurm-enclave/slurm.token"},
	}
}

func TestARestDriverThatIsSetUpIsWell(t *testing.T) {
	t.Parallel()
	f := host(t)
	f.Text["/run/slurmrestd/slurmrestd.sock"] = ""
	assert.Empty(t, broken(examine(t, f, func(s *doctor.Site) {
		s.Config.Slurm.Driver, s.Config.Slurm.Rest.Socket = "rest", "/run/slurmrestd/slurmrestd.sock"
	})))
	f = host(t)
	f.Text[conf] = strings.Replace(f.Text[conf], "SlurmUser", "AuthAltTypes=auth/jwt\nSlurmUser", 1)
	f.Text["/etc/slurm-enclave/slurm.token"] = "eyJ"
	assert.Empty(t, broken(examine(t, f, func(s *doctor.Site) {
		s.Config.Slurm.Driver, s.Config.Slurm.Rest = "rest", config.Rest{URL: "http://127.0.0.1:6820", TokenFile: "/etc/slurm-enclave/slurm.token"}
	})))
}

func TestFirewallsThatAnEnclaveCanStandBeside(t *testing.T) {
	t.Parallel()
	for name, rules := range map[string]string{
		"nothing is dropped":                 "chain input { type filter hook input priority filter; }",
		"untracked packets are let in":       "type filter hook input priority 0; policy drop;\nct state established,related,untracked accept",
		"they are let in by a map":           "type filter hook input priority 0; policy drop;\nct state vmap { established : accept, untracked : accept, invalid : drop }",
		"Slurm's ports are let in by number": "type filter hook input priority 0; policy drop;\nct state established accept\ntcp sport { 6817, 6818, 6830 } accept\ntcp dport 6818 accept",
		"what is dropped is what is not":     "type filter hook input priority 0; policy drop;\nct state != { established, untracked } drop\nct state { established, untracked } accept",
		"a comment drops them":               "# ct state untracked drop",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := host(t)
			f.Text["/etc/nftables.conf"] = rules + "\n"
			assert.Empty(t, broken(examine(t, f, func(s *doctor.Site) {
				onNode(s)
				s.Config.Verifier.Address = "10.0.0.9:6830"
			})))
		})
	}
	t.Run("one that is not loaded at boot is not judged", func(t *testing.T) {
		t.Parallel()
		f := host(t)
		delete(f.Text, "/etc/systemd/system/sysinit.target.wants/nftables.service")
		f.Text["/etc/nftables.conf"] = "flush ruleset\nct state untracked drop\n"
		assert.Empty(t, broken(examine(t, f, onNode)))
	})
}

// What the files can't tell for sure is a warning.
func TestAFirewallThatMayLetSlurmInByOtherRulesIsAWarning(t *testing.T) {
	t.Parallel()
	for _, b := range []string{"answers by their state alone", "untracked packets dropped"} {
		f := host(t)
		broke := breakagesOfNodes()[b]
		f.Text[broke.file] = broke.to
		found := broken(examine(t, f, onNode))
		require.Len(t, found, 1)
		want := ladder.Fail
		if strings.HasPrefix(b, "answers") {
			want = ladder.Warn
		}
		assert.Equal(t, want, found[0].Result, b)
	}
}

func TestTheControllerIsNotJudgedAsANode(t *testing.T) {
	t.Parallel()
	f := host(t)
	for _, b := range breakagesOfNodes() {
		if b.file != "" && b.from == "" {
			f.Text[b.file] = b.to
		}
	}
	f.Text["/etc/nftables.conf"] = "flush ruleset\n"
	assert.Empty(t, broken(examine(t, f, nil)))
}
