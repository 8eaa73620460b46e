//go:build e2e

package e2e_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Programs in perl, which every Debian has. tcpServer answers each line with ANSWER and the
// line; talk asks once; udpServer writes what it gets to a file.
const (
	tcpServer = `use IO::Socket::INET; $| = 1; my $s = IO::Socket::INET->new(LocalPort => $ARGV[0], Listen => 5, ReuseAddr => 1) or die $!;
while (my $c = $s->accept) { my $l = <$c>; print $c "ANSWER-$l"; close $c }`
	talk = `use IO::Socket::INET; my $c = IO::Socket::INET->new(PeerAddr => $ARGV[0], PeerPort => $ARGV[1], Timeout => 4) or die "refused: $!\n";
print $c "$ARGV[2]\n"; $c->flush; print scalar <$c>`
	udpServer = `use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalPort => $ARGV[0], Proto => "udp") or die $!;
open my $f, ">>", $ARGV[1]; $f->autoflush(1); while ($s->recv(my $b, 2048)) { print $f "$b\n" }`
	udpSend = `use IO::Socket::INET; my $s = IO::Socket::INET->new(PeerAddr => $ARGV[0], PeerPort => $ARGV[1], LocalPort => $ARGV[1], Proto => "udp") or die $!;
$s->send($ARGV[2]) or die "refused: $!\n"`
)

func address(t *testing.T, node string) string {
	t.Helper()
	for _, h := range state(t).Hosts {
		if h.Name == node {
			return h.Address.Addr().String()
		}
	}
	require.Fail(t, "no such host", node)
	return ""
}

// sleeper is a running job of the user on these nodes.
func sleeper(t *testing.T, user, nodes string) string {
	t.Helper()
	id := submit(t, user, "sleep 300", "--partition=cpu-sev", "--nodes="+strconv.Itoa(1+strings.Count(nodes, ",")), "--nodelist="+nodes)
	t.Cleanup(func() { on(t, "n0", "root", "scancel", id) })
	started(t, id, user, strings.Split(nodes, ",")[0])
	return id
}

// background runs a program on a host until the test's end.
func background(t *testing.T, host, user string, argv ...string) {
	t.Helper()
	c, err := state(t).Command(host, user, argv)
	require.NoError(t, err)
	p := execCommand(t, c)
	require.NoError(t, p.Start())
	t.Cleanup(func() {
		on(t, host, "root", "pkill", "-KILL", "-f", argv[len(argv)-1])
		_ = p.Process.Kill()
		_ = p.Wait()
	})
	time.Sleep(300 * time.Millisecond)
}

func TestP2NothingLeavesTheTunnel(t *testing.T) {
	idle(t)
	c := startCapture(t)
	_, said := submitProgram(t, "--user", "alice", "--nodes", "3", "--", mpiProgram("pingpong"))
	idle(t)
	frames := c.stop()
	seen := outside(frames)
	assert.Empty(t, seen, list(seen))
	tunnelled := 0
	for _, f := range frames {
		if f.proto == unix.IPPROTO_UDP && f.dstPort == tunnelPort {
			tunnelled += len(f.payload)
		}
	}
	assert.Greater(t, tunnelled, 8<<20, "the ranks' traffic went through the tunnel")

	id := strings.Fields(said)[1]
	var report struct {
		Verdict string
		Nodes   []struct{ Name, Result string }
		Network struct {
			Peers        int
			TunnelBytes  uint64  `json:"tunnel_bytes"`
			OutsideBytes *uint64 `json:"outside_bytes"`
		}
	}
	require.NoError(t, json.Unmarshal([]byte(must(t, "n0", "root", "enclave", "report", id, "--json")), &report))
	assert.Equal(t, "simulated", report.Verdict)
	require.Len(t, report.Nodes, 3)
	for _, n := range report.Nodes {
		assert.Equal(t, "affirming", n.Result, n.Name)
	}
	require.NotNil(t, report.Network.OutsideBytes)
	assert.Zero(t, *report.Network.OutsideBytes)
	assert.Greater(t, report.Network.TunnelBytes, uint64(8<<20))
}

func TestP2APlainJobShowsThatTheCaptureSees(t *testing.T) {
	background(t, "c1", "root", "perl", "-e", tcpServer, "7701")
	c := startCapture(t)
	require.Contains(t, must(t, "login", "alice", "perl", "-e", talk, address(t, "c1"), "7701", "PLAIN-1f2e"), "ANSWER-PLAIN-1f2e")
	assert.NotEmpty(t, holding(c.stop(), "PLAIN-1f2e"))
}

func TestP2ARootOwnedServerAnswersInTheTunnel(t *testing.T) {
	idle(t)
	background(t, "n2", "root", "perl", "-e", tcpServer, "7702")
	id := sleeper(t, "alice", "n1,n2")
	ask := func(mark string) (result, []frame) {
		c := startCapture(t)
		r := on(t, "n1", "alice", "perl", "-e", talk, address(t, "n2"), "7702", mark)
		return r, holding(c.stop(), mark)
	}
	r, seen := ask("TUNNEL-77aa")
	assert.Contains(t, r.out, "ANSWER-TUNNEL-77aa")
	assert.Empty(t, seen, list(seen))

	t.Run("control: with table and rules taken away it is in the clear", func(t *testing.T) {
		for _, n := range []string{"n1", "n2"} {
			blind(t, n)
			must(t, n, "root", "nft", "delete", "table", "inet", "enclave_"+id)
			must(t, n, "root", "sh", "-c", "while ip rule | grep -q 990; do ip rule del $(ip rule | grep -m1 990 | cut -f2- | sed 's/\\[.*//') || exit 1; done")
		}
		r, seen := ask("CLEAR-77bb")
		assert.Contains(t, r.out, "ANSWER-CLEAR-77bb")
		assert.NotEmpty(t, seen)
	})
}

func TestP2OtherWaysOutAreShut(t *testing.T) {
	idle(t)
	background(t, "n3", "root", "perl", "-e", tcpServer, "7703")
	background(t, "c1", "root", "perl", "-e", tcpServer, "7703")
	id := sleeper(t, "alice", "n1,n2")
	for _, host := range []string{"n3", "c1"} {
		r := on(t, "n1", "alice", "perl", "-e", talk, address(t, host), "7703", "OUT-1")
		assert.NotZero(t, r.status, "%s: %s", host, r)
	}
	t.Run("also for another user, who has no business there", func(t *testing.T) {
		r := as(t, "n1", bobID, "perl", "-e", talk, address(t, "n3"), "7703", "OUT-2")
		assert.Contains(t, r.errOut, "refused: ", "%s", r)
	})
	t.Run("and nothing gets in", func(t *testing.T) {
		background(t, "n1", "alice", "perl", "-e", tcpServer, "7704")
		r := on(t, "n3", "root", "perl", "-e", talk, address(t, "n1"), "7704", "IN-1")
		assert.NotZero(t, r.status, "%s", r)
		r = on(t, "n2", "alice", "perl", "-e", talk, address(t, "n1"), "7704", "PEER-1")
		assert.Contains(t, r.out, "ANSWER-PEER-1", "the peer's own user gets in: %s", r)
	})
	t.Run("control: with the table taken away both succeed", func(t *testing.T) {
		background(t, "n1", "alice", "perl", "-e", tcpServer, "7705")
		blind(t, "n1")
		must(t, "n1", "root", "nft", "delete", "table", "inet", "enclave_"+id)
		assert.Contains(t, must(t, "n1", "alice", "perl", "-e", talk, address(t, "c1"), "7703", "OUT-3"), "ANSWER-OUT-3")
		assert.Contains(t, must(t, "n3", "root", "perl", "-e", talk, address(t, "n1"), "7705", "IN-3"), "ANSWER-IN-3")
	})
}

func TestP2TwoJobsAtOnceDoNotMeet(t *testing.T) {
	idle(t)
	alice := sleeper(t, "alice", "n1,n2")
	bob := sleeper(t, "bob", "n3")
	background(t, "n1", "alice", "perl", "-e", tcpServer, "7707")
	c := startCapture(t)
	r := on(t, "n3", "bob", "perl", "-e", talk, address(t, "n1"), "7707", "CROSS-1")
	assert.NotZero(t, r.status, "%s", r)
	seen := outside(c.stop())
	assert.Empty(t, seen, list(seen))
	for node, not := range map[string]string{"n1": bob, "n3": alice} {
		assert.NotContains(t, must(t, node, "root", "ip", "-o", "link"), "enc"+not)
	}
}

func TestInteractiveJobsRunFromTheLoginHost(t *testing.T) {
	idle(t)
	r := on(t, "login", "alice", "srun", "--partition=cpu-sev", "--nodes=2", "hostname")
	require.Zero(t, r.status, "%s", r)
	assert.ElementsMatch(t, []string{"n1", "n2"}, strings.Fields(r.out))
	assert.Contains(t, r.errOut, "in the clear")
	idle(t)
	r = on(t, "login", "alice", "salloc", "--partition=cpu-sev", "--nodes=2", "srun", "hostname")
	require.Zero(t, r.status, "%s", r)
	assert.Contains(t, r.out, "n1")
	assert.Contains(t, r.out, "n2")
	idle(t)
}

func TestInteractiveJobsAreRefusedWhereTheSiteWantsNone(t *testing.T) {
	idle(t)
	reconfigure(t, "s/interactive: allow/interactive: deny/")
	refused := func(t *testing.T) {
		t.Helper()
		for _, argv := range [][]string{{"srun"}, {"salloc"}} {
			r := on(t, "login", "alice", append(argv, "--partition=cpu-sev", "--nodes=2", "hostname")...)
			assert.NotZero(t, r.status, "%s", r)
			assert.Contains(t, r.errOut, "E141")
			idle(t)
		}
	}
	t.Run("at submit", refused)
	t.Run("at registration, when slurmctld's table says otherwise", func(t *testing.T) {
		must(t, "n0", "root", "sed", "-i", "s/interactive = false/interactive = true/", "/var/lib/slurm-enclave/tenants.lua")
		refused(t)
	})
	id := submit(t, "alice", "srun hostname", "--partition=cpu-sev", "--nodes=2")
	await(t, id, "COMPLETED")
	idle(t)
}

// A batch job waits in the queue for the verifier; srun has to hear that it does not.
func TestARefusedInteractiveJobHearsWhy(t *testing.T) {
	idle(t)
	for n := 1; n <= labNodes; n++ {
		setFault(t, fmt.Sprintf("n%d", n), `{"wrong_measurement": true}`)
	}
	r := on(t, "login", "alice", "srun", "--partition=cpu-sev", "--nodes=3", "hostname")
	assert.NotZero(t, r.status, "%s", r)
	assert.Contains(t, r.errOut, "E530")
	assert.NotRegexp(t, `(?m)^n[1-3]$`, r.out)
	for n := 1; n <= labNodes; n++ {
		assert.Empty(t, drained(t, fmt.Sprintf("n%d", n)))
	}
}
