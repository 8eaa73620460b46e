//go:build e2e

package e2e_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/doctor"
	"github.com/slurm-enclave/slurm-enclave/internal/ladder"
)

// examined is `enclave doctor --json` on a host, as root, and its exit status.
func examined(t *testing.T, host string, args ...string) ([]doctor.Symptom, int) {
	t.Helper()
	r := on(t, host, "root", append([]string{"enclave", "doctor", "--json"}, args...)...)
	var found []doctor.Symptom
	require.NoError(t, json.Unmarshal([]byte(r.out), &found), r.String())
	return found, r.status
}

func faults(found []doctor.Symptom) map[string]string {
	out := map[string]string{}
	for _, s := range found {
		if s.Result == ladder.Fail {
			out[string(s.Code)] = s.Reason + "; " + s.Fix
		}
	}
	return out
}

func TestTheLabKeepsTheGroundRules(t *testing.T) {
	for _, host := range []string{"n0", "n1"} {
		found, status := examined(t, host)
		assert.Empty(t, faults(found), host)
		assert.Zero(t, status, host)
		for _, s := range found {
			if s.Name == "slurmctld runs with this slurm.conf" {
				assert.Equal(t, "no difference", s.Reason, host)
			}
		}
	}
}

func TestANodeIsReturnedOnceItHasProvedItself(t *testing.T) {
	setFault(t, "n2", `{"wrong_measurement":true}`)
	id := submit(t, "alice", "true", "-p", "cpu-sev", "-N", "2", "-w", "n1,n2")
	eventually(t, 90*time.Second, func() bool {
		return strings.Contains(must(t, "n0", "root", "sinfo", "-h", "-n", "n2", "-o", "%E"), "enclave:")
	},
		func() string { return must(t, "n0", "root", "sinfo", "-R") })
	on(t, "n0", "root", "scancel", id)
	// The node is drained before its epilog is through.
	eventually(t, 60*time.Second, func() bool { return on(t, "n2", "root", "enclave", "host", "check").status == 0 },
		func() string { return on(t, "n2", "root", "enclave", "host", "check").String() })
	r := on(t, "n0", "root", "enclave", "node", "return", "n2")
	assert.NotZero(t, r.status)
	assert.Contains(t, r.errOut, "E156")
	assert.Contains(t, r.errOut, "enclave node prove")
	assert.NotZero(t, on(t, "n2", "root", "enclave", "node", "prove").status, "the fault is still there")
	setFault(t, "n2", `{}`)
	assert.Contains(t, must(t, "n2", "root", "enclave", "node", "prove"), "proved, SIMULATED")
	must(t, "n0", "root", "enclave", "node", "return", "n2")
	idle(t)
}

func TestDoctorNamesABrokenGroundRuleAndTheLine(t *testing.T) {
	must(t, "n0", "root", "sh", "-c", "cp -r /etc/slurm /root/conf && sed -i s/PrologFlags=.*/PrologFlags=Serial/ /root/conf/slurm.conf.d/enclave.conf && sed -i s,/etc/slurm/slurm,/root/conf/slurm, /root/conf/slurm.conf")
	t.Cleanup(func() { must(t, "n0", "root", "rm", "-r", "/root/conf") })
	found, status := examined(t, "n0", "--slurm-conf", "/root/conf/slurm.conf")
	assert.Equal(t, 1, status)
	broken := faults(found)
	assert.Len(t, broken, 2, "%v", broken)
	assert.Contains(t, broken["E023"], "/root/conf/slurm.conf.d/enclave.conf line ")
	assert.Contains(t, broken["E024"], "serial")
	var drift doctor.Symptom
	for _, s := range found {
		if s.Code == "E045" {
			drift = s
		}
	}
	assert.Contains(t, drift.Reason, "slurmctld runs with Alloc,Contain", "the file is not what slurmctld has read")
}

// What an admin forgets on a node, or what the distribution put there.
func TestDoctorOnANodeFindsWhatTheNodeLacks(t *testing.T) {
	const (
		wants  = "/etc/systemd/system/sysinit.target.wants/nftables.service"
		unit   = "/lib/systemd/system/nftables.service"
		rules  = "/etc/nftables.conf"
		marker = "/etc/slurm-enclave/enclave-node"
		hidden = "/srv/enclave-fs"
	)
	put := func(path, text string) {
		was := on(t, "n1", "root", "cat", path)
		t.Cleanup(func() {
			if was.status != 0 {
				must(t, "n1", "root", "rm", "-f", path)
				return
			}
			onWithInput(t, "n1", "root", was.out, "sh", "-c", "cat >"+path)
		})
		r := onWithInput(t, "n1", "root", text, "sh", "-c", "mkdir -p ${0%/*} && rm -f $0 && cat >$0", path)
		require.Zero(t, r.status, r.String())
	}
	put(unit, "[Service]\nExecStart=/usr/sbin/nft -f /etc/nftables.conf\nExecStop=/usr/sbin/nft flush ruleset\n")
	put(rules, "table inet filter {\n\tchain input {\n\t\ttype filter hook input priority 0; policy drop;\n\t\tct state invalid,untracked drop\n\t}\n}\n")
	put(wants, "")
	must(t, "n1", "root", "mkdir", "-p", "/run/systemd/system")
	t.Cleanup(func() { must(t, "n1", "root", "rm", "-r", "/run/systemd") })
	must(t, "n1", "root", "chmod", "666", marker)
	t.Cleanup(func() { must(t, "n1", "root", "chmod", "644", marker) })
	must(t, "n1", "root", "chmod", "755", hidden)
	t.Cleanup(func() { must(t, "n1", "root", "chmod", "700", hidden) })
	found, status := examined(t, "n1")
	assert.Equal(t, 1, status)
	told := map[string]string{}
	for _, s := range found {
		if s.Result != ladder.Pass {
			told[string(s.Code)] = s.Reason
		}
	}
	assert.Contains(t, told["E049"], unit+" line 3")
	assert.Contains(t, told["E050"], rules+" line 4")
	assert.Contains(t, told["E051"], "enclave-host.service")
	assert.Contains(t, told["E055"], marker)
	assert.Contains(t, told["E301"], hidden)
	assert.NotContains(t, told, "E048")
}
