//go:build e2e

package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/lab"
)

const (
	leakProgram = "/usr/local/bin/leak-agent" // the test program, on the hosts
	leakFolder  = "/home/alice/leak"
	leakHolder  = "/run/leak-holder"
)

// leakSide is a job whose attempts are made: one in an enclave, and one in partition cpu, where
// nothing protects it, as the control.
type leakSide struct {
	plain                       bool
	id                          string
	node, peer, peerAddress     string
	first, second, batch, other actor // other is in another user's job; in this one for the control
	words                       *strings.Replacer
}

func (s *leakSide) file(id string) string { return leakFolder + "/text-" + id }

// startSide submits the job and waits for its agents.
func startSide(t *testing.T, plain bool) *leakSide {
	t.Helper()
	s := &leakSide{plain: plain, node: "n1", peer: "n2"}
	mine, other := s.node, "n3"
	name, options := "enclave", []string{"--partition=cpu-sev", "--nodelist=n1,n2"}
	if plain {
		s.node, s.peer = "c1", "c2"
		mine, other = "login", "login" // an enclave's fence at the other end would stop the control, too
		name, options = "plain", []string{"--partition=cpu", "--nodelist=c1,c2"}
	}
	s.peerAddress = address(t, s.peer)
	listen := leakAgent + "=listen:" + leakFolder + "/" + name
	s.id = submit(t, "alice", "cd "+leakFolder+"\n"+listen+"-batch "+leakProgram+" &\nexec srun --overlap --ntasks-per-node=1 sh -c '"+
		listen+"-$SLURM_NODEID exec "+leakProgram+"'", append(options, "--nodes=2", "--ntasks-per-node=1")...)
	t.Cleanup(func() { on(t, "n0", "root", "scancel", s.id) })
	s.first, s.second, s.batch = actorAt(t, leakFolder+"/"+name+"-0"), actorAt(t, leakFolder+"/"+name+"-1"), actorAt(t, leakFolder+"/"+name+"-batch")
	s.words = leakWords(t, s.node, s.peer, mine, other)
	for _, port := range []string{"7700", "6818/6"} {
		require.Empty(t, s.second.ask(leakRequest{Echo: port}).Err, port)
	}
	return s
}

// leakWords are what the list's words in braces mean on one side.
func leakWords(t *testing.T, node, peer, mine, other string) *strings.Replacer {
	t.Helper()
	var words []string
	for word, host := range map[string]string{"here": node, "mine": mine, "peer": peer, "other": other, "outsider": "login", "controller": "n0"} {
		cards := hostCards(t, host)
		words = append(words, "{"+word+"}", cards[0][0], "{"+word+"6}", "["+cards[0][1]+"]", "{"+word+"-b}", cards[1][0], "{"+word+"-b6}", "["+cards[1][1]+"]", "{"+word+"-stray}", "["+strayAddress(cards[1][1])+"]")
	}
	link := strings.Fields(must(t, peer, "root", "ip", "-o", "-6", "addr", "show", "dev", "eth0", "scope", "link"))
	own, _, _ := strings.Cut(link[slices.Index(link, "inet6")+1], "/")
	return strings.NewReplacer(append(words, "{peer-ll}", "["+own+"%eth0]")...)
}

func hostCards(t *testing.T, host string) (cards [][2]string) {
	t.Helper()
	for _, h := range state(t).Hosts {
		if h.Name == host {
			for _, c := range h.Cards() {
				cards = append(cards, [2]string{c[0].Addr().String(), c[1].Addr().String()})
			}
		}
	}
	require.NotEmpty(t, cards, host)
	return cards
}

// prepareLeaks puts programs, texts' folder and root's servers where they are needed.
func prepareLeaks(t *testing.T) {
	t.Helper()
	for _, host := range []string{"n1", "n2", "n3", "c1", "c2", "login", "n0"} {
		copySelf(t, host, leakProgram)
		must(t, host, "root", "chmod", "755", leakProgram)
	}
	for _, host := range []string{"n1", "c1"} {
		must(t, host, "root", "sysctl", "-q", "net.ipv4.ping_group_range=0 2147483647") // as systemd sets it
	}
	for _, host := range []string{"n1", "c1"} {
		must(t, host, "root", "install", "-m", "4755", leakProgram, leakProgram+"-setuid")
		must(t, host, "root", "install", "-m", "755", leakProgram, capable())
		must(t, host, "root", "env", leakAgent+"=setcap:"+capable(), leakProgram)
		t.Cleanup(func() { on(t, host, "root", "rm", leakProgram+"-setuid", capable()) })
	}
	must(t, "login", "alice", "mkdir", "-p", leakFolder)
	t.Cleanup(func() { on(t, "login", "root", "rm", "-rf", leakFolder) })
	for to, from := range map[string]string{"payload": mpiProgram("payload"), "payload-mpich": filepath.Join(programs(), "payload-mpich")} {
		b, err := os.ReadFile(from)
		require.NoError(t, err)
		putHome(t, to, b)
	}
	for host, ports := range map[string]string{"n2": "7710", "c2": "7710", "n3": "7700", "login": "7700,6818,6007", "n0": "7700"} {
		background(t, host, "root", "env", leakAgent+"=echo:"+ports, leakProgram)
	}
	if suite() != "" {
		return
	}
	must(t, "login", "alice", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", leakFolder+"/key")
	for _, host := range []string{"n2", "c2"} {
		must(t, host, "root", "mkdir", "-p", "/run/sshd")
		background(t, host, "root", "sh", "-c", "ssh-keygen -q -t ed25519 -N '' -f /run/sshd/key; exec /usr/sbin/sshd -D -f /dev/null -h /run/sshd/key -p 7722 -o StrictModes=no -o AuthorizedKeysFile="+leakFolder+"/key.pub")
	}
}

// putHome writes a file into the folder that the suite has in alice's home.
func putHome(t *testing.T, name string, b []byte) {
	t.Helper()
	path := filepath.Join(fmt.Sprintf("/proc/%d/root", state(t).Supervisor), lab.Directory(), "root", leakFolder, name)
	require.NoError(t, os.WriteFile(path, b, 0o755))
}

// holders keep sockets that alice's user id opened while the nodes were closed. Their fences would not
// have let the connections be made: they are opened for that moment.
func startHolders(t *testing.T) {
	t.Helper()
	shut := []func(){openClosed(t, "n1", "out"), openClosed(t, "n2", "in")}
	for node, peer := range map[string]string{"n1": "n2", "c1": "c2"} {
		card := hostCards(t, peer)[0]
		mode := strings.Join([]string{
			"hold:" + leakHolder, "udp=" + card[0] + ":7700", "tcp=" + card[0] + ":7710", "tcp=[" + card[1] + "]:7710",
			"udp=" + address(t, "login") + ":7700", "tcp=" + address(t, "login") + ":7700",
		}, ",")
		background(t, node, "root", "env", leakAgent+"="+mode, leakProgram)
		eventually(t, 10*time.Second, func() bool { return on(t, node, "root", "test", "-S", leakHolder).status == 0 },
			func() string { return "no sockets are held on " + node })
		t.Cleanup(func() { on(t, node, "root", "rm", "-f", leakHolder) })
	}
	for _, do := range shut {
		do()
	}
}

// openClosed lets everything through one chain of a node's closed fence until its result is called.
func openClosed(t *testing.T, node, chain string) (shut func()) {
	t.Helper()
	must(t, node, "root", "nft", "insert", "rule", "inet", "enclave_closed", chain, "accept")
	return func() {
		listed := strings.Fields(must(t, node, "root", "nft", "-a", "list", "chain", "inet", "enclave_closed", chain))
		at := slices.Index(listed, "accept")
		require.Equal(t, "handle", listed[at+2], "%v", listed)
		must(t, node, "root", "nft", "delete", "rule", "inet", "enclave_closed", chain, "handle", listed[at+3])
	}
}

// makeBox is what a setuid container runtime does for its user: a network namespace with a link to
// the node, which passes on what comes from there.
func makeBox(t *testing.T, node string) {
	t.Helper()
	must(t, node, "root", "sh", "-ec", `ip netns add leakbox
ip link add box0 type veth peer name eth0 netns leakbox
ip addr add 10.99.0.1/24 dev box0
ip link set box0 up
ip -n leakbox addr add 10.99.0.2/24 dev eth0
ip -n leakbox link set eth0 up
ip -n leakbox route add default via 10.99.0.1
ip addr add fd99::1/64 dev box0 nodad
ip -n leakbox addr add fd99::2/64 dev eth0 nodad
ip -n leakbox route add default via fd99::1
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
nft add table inet leakbox
nft add chain inet leakbox post '{ type nat hook postrouting priority 100; }'
nft add rule inet leakbox post ip saddr 10.99.0.0/24 masquerade
nft add rule inet leakbox post ip6 saddr fd99::/64 masquerade`)
}

func removeBox(t *testing.T, node string) {
	t.Helper()
	must(t, node, "root", "sh", "-ec", `nft delete table inet leakbox; echo 0 >/proc/sys/net/ipv4/ip_forward; echo 0 >/proc/sys/net/ipv6/conf/all/forwarding; ip link del box0; ip netns del leakbox`)
}

// stray adds or deletes addresses of a network that the inventory does not know, as a site may forget one.
func stray(t *testing.T, do string) {
	t.Helper()
	for _, host := range []string{"n1", "n2", "c1", "c2"} {
		must(t, host, "root", "ip", "addr", do, strayAddress(hostCards(t, host)[1][1])+"/64", "dev", "eth1", "nodad")
	}
}

func strayAddress(second string) string { return strings.Replace(second, "fd94:", "fd95:", 1) }
