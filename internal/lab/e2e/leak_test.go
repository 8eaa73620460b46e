//go:build e2e

package e2e_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
)

// leakOutcome is what an attempt came to on one side.
type leakOutcome struct {
	seen

	answer  leakAnswer
	refused refusals
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
	if r.Mark == ownMark {
		job, err := strconv.ParseUint(s.id, 10, 32)
		require.NoError(t, err)
		r.Mark = int(mesh.FwMark(uint32(job)))
	}
	switch {
	case a.boxed:
		return leakAs(t, s.node, "root", r, "ip", "netns", "exec", "leakbox", "setpriv", "--reuid=2001", "--regid=2001", "--clear-groups")
	case a.byOther:
		return s.other.ask(leakRequest{Act: &r})
	case a.byRoot && s.plain:
		r.Via = nil
		return leakAs(t, s.node, "root", r)
	case a.login:
		return leakAs(t, s.node, "alice", r)
	}
	return s.first.ask(leakRequest{Act: &r})
}

// leakAs does a role by a program of a user's that is in no step.
func leakAs(t *testing.T, node, user string, r leakRole, words ...string) leakAnswer {
	t.Helper()
	b, err := json.Marshal(r)
	require.NoError(t, err)
	said := onWithInput(t, node, user, string(b), append(words, "env", leakAgent+"=act", leakProgram)...)
	var answer leakAnswer
	require.NoError(t, json.Unmarshal([]byte(said.out), &answer.leakResult), "%s", said)
	return answer
}

// both makes an attempt on both sides at once, other being the other enclave's job, and says what the switches saw of it.
func both(t *testing.T, w *wire, sides [2]*leakSide, other string, a leakAttempt, number int) (out [2]leakOutcome) {
	t.Helper()
	node, id := sides[0].node, sides[0].id
	if a.byOther {
		node, id = "n3", other
	}
	refusedBefore := refusedBy(t, node, id)
	var wg sync.WaitGroup
	for i, s := range sides {
		text := leakID(number, s.plain)
		before := w.of(text, s.plain)
		wg.Go(func() { out[i].answer = s.attempt(t, a, text) })
		defer func() { out[i].seen = w.of(text, s.plain).since(before) }()
	}
	wg.Wait()
	time.Sleep(100 * time.Millisecond) // what is on its way
	out[0].refused = refusedBy(t, node, id).since(refusedBefore)
	return out
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
	const bobs = "/home/bob/leak-agent.socket"
	other := submit(t, "bob", leakAgent+"=listen:"+bobs+" exec "+leakProgram, "--partition=cpu-sev", "--nodelist=n3")
	t.Cleanup(func() { on(t, "n0", "root", "scancel", other) })
	sides := [2]*leakSide{startSide(t, false), startSide(t, true)}
	sides[0].other, sides[1].other = actorAt(t, bobs), sides[1].first
	w := startWire(t)
	table := leakTable{}
	attempt := func(list []leakAttempt) {
		for _, a := range list {
			if !a.possible() {
				continue
			}
			out := both(t, w, sides, other, a, len(table.rows)+1)
			table.add(a, out)
			t.Run(a.name, func(t *testing.T) { judgeLeak(t, a, out) })
		}
	}
	for _, s := range sides {
		makeBox(t, s.node)
	}
	stray(t, "add")
	attempt(slices.Concat(toPeers(), besideTheTunnel(), toOthers(), throughKernel(), setuidPrograms()))
	for _, s := range sides {
		removeBox(t, s.node) // MPI would announce its address to the peer
	}
	stray(t, "del")
	attempt(leakPrograms())
	total := refusedBy(t, "n1", sides[0].id).sum() + refusedBy(t, "n2", sides[0].id).sum()
	// The user's sockets that root's program holds would be a leftover of his, and are one.
	on(t, "n1", "root", "pkill", "-KILL", "-u", "root", "-f", leakProgram)
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
		assert.Positive(t, enclaved.refused.of(a), "nothing was counted that this attempt must raise; %s", said)
	case denied:
		assert.Contains(t, strings.ToLower(enclaved.answer.Err), unix.EPERM.Error(), said)
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
