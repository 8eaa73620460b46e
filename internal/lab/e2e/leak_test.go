//go:build e2e

package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/lab"
)

const (
	leakProgram = "/usr/local/bin/leak-agent" // the test program, on the hosts
	leakFolder  = "/home/alice/leak"
	leakHolder  = "/run/leak-holder"
)

// labHome is alice's home as the lab's first process sees it.
func labHome(*testing.T) string { return filepath.Join(lab.Directory(), "root/home/alice") }

// leakSide is a job whose attempts are made: one in an enclave, and one in partition cpu, where
// nothing protects it, as the control.
type leakSide struct {
	plain                   bool
	id                      string
	node, peer, peerAddress string
	first, second, batch    actor
	words                   *strings.Replacer
}

func (s *leakSide) file(id string) string { return leakFolder + "/text-" + id }

// startSide submits the job and waits for its agents.
func startSide(t *testing.T, plain bool) *leakSide {
	t.Helper()
	s := &leakSide{plain: plain, node: "n1", peer: "n2"}
	other := "n3"
	name, options := "enclave", []string{"--partition=cpu-sev", "--nodelist=n1,n2"}
	if plain {
		s.node, s.peer = "c1", "c2"
		other = "login" // the other enclave's fence would stop the control, too
		name, options = "plain", []string{"--partition=cpu", "--nodelist=c1,c2"}
	}
	s.peerAddress = address(t, s.peer)
	listen := leakAgent + "=listen:" + leakFolder + "/" + name
	s.id = submit(t, "alice", "cd "+leakFolder+"\n"+listen+"-batch "+leakProgram+" &\nexec srun --overlap --ntasks-per-node=1 sh -c '"+
		listen+"-$SLURM_NODEID exec "+leakProgram+"'", append(options, "--nodes=2", "--ntasks-per-node=1")...)
	t.Cleanup(func() { on(t, "n0", "root", "scancel", s.id) })
	s.first, s.second, s.batch = actorAt(t, "leak/"+name+"-0"), actorAt(t, "leak/"+name+"-1"), actorAt(t, "leak/"+name+"-batch")
	s.words = leakWords(t, s.node, s.peer, other)
	for _, port := range []string{"7700", "6818/6"} {
		require.Empty(t, s.second.ask(leakRequest{Echo: port}).Err, port)
	}
	return s
}

// leakWords are what the list's words in braces mean on one side.
func leakWords(t *testing.T, node, peer, other string) *strings.Replacer {
	t.Helper()
	var words []string
	for word, host := range map[string]string{"here": node, "peer": peer, "other": other, "outsider": "login", "controller": "n0"} {
		cards := hostCards(t, host)
		words = append(words, "{"+word+"}", cards[0][0], "{"+word+"6}", "["+cards[0][1]+"]", "{"+word+"-b}", cards[1][0], "{"+word+"-b6}", "["+cards[1][1]+"]")
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
	must(t, "n1", "root", "install", "-m", "4755", leakProgram, leakProgram+"-setuid")
	must(t, "c1", "root", "install", "-m", "4755", leakProgram, leakProgram+"-setuid")
	t.Cleanup(func() {
		on(t, "n1", "root", "rm", leakProgram+"-setuid")
		on(t, "c1", "root", "rm", leakProgram+"-setuid")
	})
	must(t, "login", "alice", "mkdir", "-p", leakFolder)
	t.Cleanup(func() { on(t, "login", "root", "rm", "-rf", leakFolder) })
	for _, p := range []string{"payload", "payload-mpich"} {
		b, err := os.ReadFile(filepath.Join(programs(), p))
		require.NoError(t, err)
		putHome(t, p, b)
	}
	must(t, "login", "alice", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", leakFolder+"/key")
	for host, ports := range map[string]string{"n2": "7710", "c2": "7710", "n3": "7700", "login": "7700,6818,6007", "n0": "7700"} {
		background(t, host, "root", "env", leakAgent+"=echo:"+ports, leakProgram)
	}
	for _, host := range []string{"n2", "c2"} {
		if suite() != "" {
			break // no sshd
		}
		must(t, host, "root", "mkdir", "-p", "/run/sshd")
		background(t, host, "root", "sh", "-c", "ssh-keygen -q -t ed25519 -N '' -f /run/sshd/key; exec /usr/sbin/sshd -D -f /dev/null -h /run/sshd/key -p 7722 -o StrictModes=no -o AuthorizedKeysFile="+leakFolder+"/key.pub")
	}
}

// putHome writes a file into the folder that the suite has in alice's home.
func putHome(t *testing.T, name string, b []byte) {
	t.Helper()
	path := filepath.Join(fmt.Sprintf("/proc/%d/root", state(t).Supervisor), labHome(t), "leak", name)
	require.NoError(t, os.WriteFile(path, b, 0o755))
}

// holders keep sockets that alice's user id opened while the node was closed. Its fence would not
// have let the connection be made: it is opened for that moment.
func startHolders(t *testing.T) {
	t.Helper()
	must(t, "n1", "root", "nft", "insert", "rule", "inet", "enclave_closed", "out", "accept")
	for node, peer := range map[string]string{"n1": "n2", "c1": "c2"} {
		mode := strings.Join([]string{
			"hold:" + leakHolder, "udp=" + address(t, peer) + ":7700", "udp=" + address(t, "login") + ":7700", "tcp=" + address(t, "login") + ":7700",
		}, ",")
		background(t, node, "root", "env", leakAgent+"="+mode, leakProgram)
		eventually(t, 10*time.Second, func() bool { return on(t, node, "root", "test", "-S", leakHolder).status == 0 },
			func() string { return "no sockets are held on " + node })
		t.Cleanup(func() { on(t, node, "root", "rm", "-f", leakHolder) })
	}
	listed := strings.Fields(must(t, "n1", "root", "nft", "-a", "list", "chain", "inet", "enclave_closed", "out"))
	at := slices.Index(listed, "accept")
	require.Equal(t, "handle", listed[at+2], "%v", listed)
	must(t, "n1", "root", "nft", "delete", "rule", "inet", "enclave_closed", "out", "handle", listed[at+3])
}

// leakOutcome is what an attempt came to on one side.
type leakOutcome struct {
	seen

	answer  leakAnswer
	refused int
}

// attempt makes one attempt on one side.
func (s *leakSide) attempt(t *testing.T, a leakAttempt, id string) leakAnswer {
	t.Helper()
	if a.program != nil {
		text := leakText(id)
		putHome(t, "text-"+id, []byte(text))
		putHome(t, "text-"+id+"-large", []byte(strings.Repeat(text, (1<<20)/len(text))))
		if len(a.beside) > 0 {
			done := make(chan leakAnswer, 1)
			go func() { done <- s.second.ask(leakRequest{Run: a.beside}) }()
			time.Sleep(300 * time.Millisecond)
			defer func() { <-done }()
		}
		return s.batch.ask(a.program(s, id))
	}
	r := a.role
	r.Payload, r.To, r.From, r.Option = leakText(id), s.words.Replace(r.To), s.words.Replace(r.From), s.words.Replace(r.Option)
	switch {
	case a.boxed:
		return leakAsRoot(t, s.node, r, "ip", "netns", "exec", "leakbox", "setpriv", "--reuid=2001", "--regid=2001", "--clear-groups")
	case a.byRoot && s.plain:
		r.Via = nil
		return leakAsRoot(t, s.node, r, "env")
	}
	return s.first.ask(leakRequest{Act: &r})
}

// leakAsRoot does a role by a program of root's.
func leakAsRoot(t *testing.T, node string, r leakRole, words ...string) leakAnswer {
	t.Helper()
	b, err := json.Marshal(r)
	require.NoError(t, err)
	said := onWithInput(t, node, "root", string(b), append(words, "env", leakAgent+"=act", leakProgram)...)
	var answer leakAnswer
	require.NoError(t, json.Unmarshal([]byte(said.out), &answer.leakResult), "%s", said)
	return answer
}

// both makes an attempt on both sides at once and says what the switches saw of it.
func both(t *testing.T, w *wire, sides [2]*leakSide, a leakAttempt, number int) (out [2]leakOutcome) {
	t.Helper()
	refusedBefore := refusedBy(t, sides[0])
	var wg sync.WaitGroup
	for i, s := range sides {
		id := leakID(number, s.plain)
		before := w.of(id, s.plain)
		wg.Go(func() { out[i].answer = s.attempt(t, a, id) })
		defer func() { out[i].seen = w.of(id, s.plain).since(before) }()
	}
	wg.Wait()
	time.Sleep(100 * time.Millisecond) // what is on its way
	out[0].refused = refusedBy(t, sides[0]) - refusedBefore
	return out
}

// refusedBy is how many packets the fence of the first node has turned away from the way out.
func refusedBy(t *testing.T, s *leakSide) (sum int) {
	t.Helper()
	words := strings.Fields(must(t, s.node, "root", "nft", "list", "counters", "table", "inet", "enclave_"+s.id))
	for i, w := range words {
		if w == "counter" && slices.Contains([]string{"rejected", "escaped", "forwarded"}, words[i+1]) {
			n, err := strconv.Atoi(words[i+4])
			require.NoError(t, err, "%v", words[i:])
			sum += n
		}
	}
	return sum
}

// possible says whether the attempt can be made here: its protocol is spoken, its program is there.
func (a leakAttempt) possible() bool {
	return (a.without == 0 || spoken(a.without)) && (!a.installed || suite() == "")
}

// spoken says whether this kernel speaks a protocol.
func spoken(protocol int) bool {
	kind := unix.SOCK_DGRAM
	if protocol != unix.IPPROTO_UDPLITE {
		kind = unix.SOCK_STREAM
	}
	fd, err := unix.Socket(unix.AF_INET, kind, protocol)
	if err == nil {
		_ = unix.Close(fd)
	}
	return err == nil
}

func TestP2LeaksAreTunnelledOrRefused(t *testing.T) {
	idle(t)
	prepareLeaks(t)
	startHolders(t)
	other := sleeper(t, "bob", "n3")
	sides := [2]*leakSide{startSide(t, false), startSide(t, true)}
	w := startWire(t)
	table := leakTable{}
	attempt := func(list []leakAttempt) {
		for _, a := range list {
			if !a.possible() {
				continue
			}
			out := both(t, w, sides, a, len(table.rows)+1)
			table.add(a, out)
			t.Run(a.name, func(t *testing.T) { judgeLeak(t, a, out) })
		}
	}
	for _, s := range sides {
		makeBox(t, s.node)
	}
	attempt(slices.Concat(toPeers(), besideTheTunnel(), toOthers(), setuidPrograms()))
	for _, s := range sides {
		removeBox(t, s.node) // MPI would announce its address to the peer
	}
	attempt(leakPrograms())
	total := refusedBy(t, sides[0]) + refusedBy(t, &leakSide{node: "n2", id: sides[0].id})
	must(t, "n0", "root", "scancel", sides[0].id, sides[1].id, other)
	idle(t)
	for _, a := range slices.DeleteFunc(fromTheSubmitHost(), func(a leakAttempt) bool { return !a.possible() }) {
		out := a.fromSubmitHost(t, w, len(table.rows)+1)
		table.add(a, out)
		t.Run(a.name, func(t *testing.T) { judgeLeak(t, a, out) })
	}
	t.Log("\n" + table.String())
	assert.Zero(t, w.lost(t), "packets were lost before they could be looked at")
	t.Run("the report tells what was refused and what is in the clear", func(t *testing.T) { tellsLeaks(t, sides[0].id, total) })
}

// judgeLeak is what an attempt has to come to.
func judgeLeak(t *testing.T, a leakAttempt, out [2]leakOutcome) {
	t.Helper()
	enclaved, control := out[0], out[1]
	said := fmt.Sprintf("enclave: %+v\ncontrol: %+v", enclaved, control)
	if a.expect != named {
		assert.Zero(t, enclaved.Clear, "the user's data is in the clear; %s", said)
		assert.Zero(t, enclaved.Outside, "bytes between the nodes outside the tunnel; %s", said)
	}
	worked := enclaved.answer.Echo || a.program != nil && a.says == "" && enclaved.answer.Status == 0 ||
		a.says != "" && strings.Contains(enclaved.answer.Output, a.says)
	if a.interactive != "" {
		assert.Zero(t, enclaved.answer.Status+control.answer.Status, "it must work; %s", said)
	}
	switch a.expect {
	case tunnelled:
		assert.True(t, worked, "it must work; %s", said)
		assert.Greater(t, enclaved.Tunnel, 1024, said)
	case silent:
		assert.False(t, worked, said)
		assert.Greater(t, enclaved.Tunnel, 1024, said)
	case refusal:
		assert.False(t, worked, said)
		assert.Positive(t, enclaved.refused, "nothing was counted; %s", said)
	case denied:
		assert.Contains(t, enclaved.answer.Err, unix.EPERM.Error(), said)
	case nowhere:
		assert.NotEmpty(t, enclaved.answer.Err, said)
	case named:
		assert.Positive(t, enclaved.Clear, "it is said to be in the clear and is not; %s", said)
	}
	if a.encrypted {
		assert.Positive(t, control.Outside, "the control shows no leak; %s", said)
	} else {
		assert.Positive(t, control.Clear, "the control shows no leak; %s", said)
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
echo 1 >/proc/sys/net/ipv4/ip_forward
nft add table ip leakbox
nft add chain ip leakbox post '{ type nat hook postrouting priority 100; }'
nft add rule ip leakbox post ip saddr 10.99.0.0/24 masquerade`)
}

func removeBox(t *testing.T, node string) {
	t.Helper()
	must(t, node, "root", "sh", "-ec", `nft delete table ip leakbox; echo 0 >/proc/sys/net/ipv4/ip_forward; ip link del box0; ip netns del leakbox`)
}
