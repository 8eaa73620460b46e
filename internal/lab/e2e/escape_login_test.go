//go:build e2e

package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	loginRan = "/home/alice/escape-login" // one folder for all hosts
	// tellLogin is a login profile that says whether it runs in a step: there, setuid programs give nothing.
	tellLogin = "grep -q 'NoNewPrivs:.*0' /proc/self/status && echo LOOT >>" + loginRan + " || echo in a step >>" + loginRan + "\n"
	// suLetsIn: the lab's users stand in no shadow file, for which su would send them away.
	suLetsIn = "cp /etc/pam.d/su /root/su.kept; cp /etc/pam.d/su-l /root/su-l.kept; printf 'auth sufficient pam_rootok.so\\naccount required pam_permit.so\\nsession required pam_permit.so\\n' >/etc/pam.d/su"
)

// profile gives alice a login profile, and lets su start it on the hosts.
func profile(t *testing.T, text string) {
	t.Helper()
	require.Zero(t, onWithInput(t, "login", "alice", text, "sh", "-c", "cat >/home/alice/.bash_profile").status)
	t.Cleanup(func() { on(t, "login", "alice", "rm", "-f", "/home/alice/.bash_profile", loginRan) })
	for _, host := range []string{"n1", "c1"} {
		must(t, host, "root", "sh", "-c", suLetsIn)
		t.Cleanup(func() {
			must(t, host, "root", "sh", "-c", "mv /root/su.kept /etc/pam.d/su; mv /root/su-l.kept /etc/pam.d/su-l")
		})
	}
}

// loginJob runs a job and says what the profile wrote meanwhile.
func loginJob(partition, node string, environ []string, options ...string) func(*testing.T, string) string {
	return func(t *testing.T, _ string) string {
		t.Helper()
		on(t, "login", "alice", "rm", "-f", loginRan)
		argv := append([]string{"env"}, environ...)
		argv = append(argv, "sbatch", "--parsable", "--output=login-%j.out", "--partition="+partition, "--nodelist="+node)
		r := onWithInput(t, "login", "alice", "#!/bin/sh\necho home=$HOME user=$USER path=$PATH\n", append(argv, options...)...)
		require.Zero(t, r.status, "%s", r)
		id := strings.TrimSpace(r.out)
		t.Cleanup(func() { on(t, "login", "alice", "rm", "-f", "login-"+id+".out") })
		await(t, id, "COMPLETED")
		idle(t)
		said := must(t, "login", "alice", "cat", "login-"+id+".out")
		assert.Regexp(t, `^home=/home/alice user=alice path=/.*\n$`, said, "the script has what it needs")
		return on(t, "login", "alice", "cat", loginRan).out
	}
}

// TestEscapeLogin: slurmd runs the user's login shell for sbatch --get-user-env, as its own child:
// before the gate and in no step. P1.
func TestEscapeLogin(t *testing.T) {
	idle(t)
	profile(t, tellLogin)
	var attempts []attempt
	for _, way := range []struct {
		name    string
		environ []string
		options []string
	}{
		{"sbatch --get-user-env", nil, []string{"--get-user-env"}},
		{"sbatch --get-user-env with a time", nil, []string{"--get-user-env=20L"}},
		{"sbatch --export=NONE", nil, []string{"--export=NONE"}},
		{"sbatch --export=NAME", nil, []string{"--export=FOO=bar"}},
		{"SBATCH_GET_USER_ENV in the environment", []string{"SBATCH_GET_USER_ENV=1"}, nil},
		{"SLURM_GET_USER_ENV in the environment", []string{"SLURM_GET_USER_ENV=1"}, nil},
	} {
		if suite() == "forky" && strings.HasSuffix(way.name, "with a time") {
			continue // sbatch knows no time any more
		}
		control := loginJob("cpu", "c1", way.environ, way.options...)
		attempts = append(attempts, attempt{
			name: "a login profile before the gate: " + way.name, in: loginJob("cpu-sev", "n1", way.environ, way.options...),
			control: proof{"in partition cpu", func(t *testing.T, a attempt) string { return control(t, a.try) }},
		})
	}
	judge(t, "login profile", prison{}, attempts)
}

// TestEscapeLoginOfAMovedJob: what a job asks for when it is submitted elsewhere nobody can read when it is
// moved into an enclave, so slurmd does run the profile. It reaches what a login by ssh reaches, and nothing where the node
// has not admitted the job.
func TestEscapeLoginOfAMovedJob(t *testing.T) {
	idle(t)
	must(t, "n1", "root", "sh", "-c", "echo LOOT-OF-BOB >"+secret+"; chmod 755 "+otherTree+"; chmod 644 "+secret)
	t.Cleanup(func() {
		on(t, "n1", "root", "rm", "-f", secret)
		on(t, "n1", "root", "chmod", "770", otherTree)
	})
	background(t, "login", "root", "perl", "-MIO::Socket::INET", "-e", `$l = IO::Socket::INET->new(LocalPort => 7718, Listen => 5, ReuseAddr => 1) or die; while ($c = $l->accept) { print $c "LOOT from outside\n"; close $c }`)
	profile(t, `{
echo "ran on $(hostname), $(ls /lustre | wc -l) names in /lustre"
cat `+secret+` /run/slurm-enclave/gate/* /run/slurm-enclave/*/journal && echo LOOT
timeout 2 bash -c 'cat </dev/tcp/`+address(t, "login")+`/7718'
setsid sleep 7779 &
} >>`+loginRan+` 2>&1
`)
	moved := func(t *testing.T, nodes ...string) string {
		t.Helper()
		on(t, "login", "alice", "rm", "-f", loginRan)
		id := submit(t, "alice", "echo in the job", "--partition=cpu", "--account=digimed", "--hold", "--get-user-env", "--output=/dev/null")
		must(t, "login", "alice", "scontrol", "update", "job="+id, "partition=cpu-sev", fmt.Sprintf("numnodes=%d", len(nodes)), "reqnodelist="+strings.Join(nodes, ","))
		must(t, "login", "alice", "scontrol", "release", id)
		return id
	}
	t.Run("where the job is admitted, it is in the fence and in the view", func(t *testing.T) {
		id := moved(t, "n1")
		await(t, id, "COMPLETED")
		idle(t)
		said := on(t, "login", "alice", "cat", loginRan).out
		require.Contains(t, said, "ran on n1", "control: slurmd ran it")
		assert.NotContains(t, said, loot)
		assert.NotZero(t, on(t, "n1", "root", "pgrep", "-f", "sleep 7779").status, "what it left is gone with the job")
		assert.Empty(t, drained(t, "n1"))
	})
	t.Run("control: with the folder and the way opened it reaches them", func(t *testing.T) {
		must(t, "n1", "root", "chmod", "755", "/srv/enclave-fs")
		defer must(t, "n1", "root", "chmod", "700", "/srv/enclave-fs")
		said := on(t, "login", "alice", "bash", "-c", "cat </dev/tcp/127.0.0.1/7718").out
		assert.Contains(t, said, loot)
		assert.Contains(t, on(t, "n1", "alice", "cat", secret).out, loot)
	})
	t.Run("where the node denies the job, there is nothing to be reached", func(t *testing.T) {
		t.Cleanup(func() { resume(t, "n1", "n2", "n3") })
		reconfigure(t, "/simulated/d")
		id := moved(t, "n1", "n2", "n3") // all for one reason: nobody's fault, so they deny and are not drained
		eventually(t, 60*time.Second, func() bool {
			return strings.Contains(on(t, "login", "alice", "enclave", "why", id).out, "E53")
		}, func() string { return on(t, "login", "alice", "enclave", "why", id).String() })
		must(t, "n0", "root", "scancel", id)
		idle(t)
		said := on(t, "login", "alice", "cat", loginRan).out
		t.Logf("the profile of a job that was denied: %q", said)
		assert.NotContains(t, said, loot)
		assert.NotRegexp(t, `ran on n1, [1-9]`, said, "no data is there")
		assert.NotZero(t, on(t, "n1", "root", "pgrep", "-u", "alice").status, "nothing of it is left")
	})
	t.Run("where su lets nobody in, it does not run", func(t *testing.T) {
		must(t, "n1", "root", "sed", "-i", "1i account requisite pam_succeed_if.so quiet uid < 1000", "/etc/pam.d/su", "/etc/pam.d/su-l")
		id := moved(t, "n1")
		// 22.05 and 24.11 run the job without the environment, 26.05 holds it.
		eventually(t, 60*time.Second, func() bool {
			return field(t, id, "JobState") == "COMPLETED" || strings.HasPrefix(field(t, id, "Reason"), "user_env_retrieval_failed")
		}, func() string { return on(t, "n0", "root", "scontrol", "show", "job", id).out })
		on(t, "n0", "root", "scancel", id)
		idle(t)
		assert.Empty(t, drained(t, "n1"))
		assert.NotContains(t, on(t, "login", "alice", "cat", loginRan).out, "ran on")
	})
}
