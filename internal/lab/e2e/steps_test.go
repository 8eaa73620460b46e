//go:build e2e

package e2e_test

import (
	"bytes"
	"encoding/json"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/journal"
)

const killerPath = "/root/killer"

// journaled runs a job on n2 and gives the steps that its prolog and its epilog journal: what is to be
// interrupted is what there is, and not what somebody once wrote down. Lines that are written at once after each other
// are one step, the last of them: nothing happens in between.
func journaled(t *testing.T) (prolog, epilog []step) {
	t.Helper()
	id := submit(t, "alice", "sleep 2", "-p", "cpu-sev", "-w", "n2")
	started(t, id, "alice", "n2")
	text := []byte(must(t, "n2", "root", "sh", "-c", "cat /run/slurm-enclave/*/journal"))
	prolog = stepsOf(text)
	require.NotEmpty(t, prolog)
	// The epilog stops at its first step, and is read at each one while it goes on in slices.
	out := must(t, "n2", "root", "sh", "-c", `last=; while [ -e /run/slurm-enclave/`+id+`.0/journal ]; do
		now=$(cat /run/slurm-enclave/`+id+`.0/journal 2>/dev/null); [ -z "$now" ] || last=$now; done; printf '%s\n' "$last"`)
	all := stepsOf([]byte(out))
	require.Greater(t, len(all), len(prolog), "the epilog journals, too")
	await(t, id, "COMPLETED")
	idle(t)
	epilog = all[len(prolog):]
	return longer(text), epilog
}

// longer are the steps of a journal that are not followed by the next one within half a millisecond.
func longer(text []byte) (all []step) {
	var before journal.Line
	for line := range bytes.Lines(text) {
		var l journal.Line
		if json.Unmarshal(line, &l) != nil || l.Seq == 0 {
			continue
		}
		if before.Seq != 0 && l.Time-before.Time > int64(time.Millisecond/2) {
			all = append(all, step{before.Stage, before.Act})
		}
		before = l
	}
	return append(all, step{before.Stage, before.Act})
}

// caught is a killer at its work on n2.
type caught struct {
	t      *testing.T
	cmd    *exec.Cmd
	said   strings.Builder
	resume io.WriteCloser
}

func catch(t *testing.T, program string, at step, words ...string) *caught {
	t.Helper()
	order := strings.Join(append([]string{program, at.stage, string(at.act)}, words...), " ")
	argv, err := state(t).Command("n2", "root", []string{"env", killAt + "=" + order, killerPath})
	require.NoError(t, err)
	c := &caught{t: t, cmd: exec.CommandContext(t.Context(), argv[0], argv[1:]...)}
	c.cmd.Stdout = &c.said
	c.resume, err = c.cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, c.cmd.Start())
	return c
}

// step is where the program was caught, or missed.
func (c *caught) step() string {
	c.t.Helper()
	require.NoError(c.t, c.cmd.Wait(), c.said.String())
	return strings.TrimSpace(c.said.String())
}

// again repeats an attempt until the program was caught in its step. On a busy machine it slips through.
func again(t *testing.T, at step, attempt func() string) {
	t.Helper()
	for range 12 {
		if attempt() == at.String() {
			return
		}
	}
	require.Fail(t, "never caught in the step", at.String())
}

// works runs a job on n2 to its end; the node is then as it was.
func works(t *testing.T, was string) {
	t.Helper()
	id := submit(t, "alice", "true", "-p", "cpu-sev", "-w", "n2")
	await(t, id, "COMPLETED")
	idle(t)
	eventually(t, 30*time.Second, func() bool { return nodeTrace(t, "n2") == was }, func() string { return nodeTrace(t, "n2") })
}

// A program that is killed drains its node, for Slurm can't know better. What it had begun is taken down all
// the same, and the node works once it is resumed.
func TestP4KilledAtEveryJournaledStep(t *testing.T) {
	idle(t)
	was := nodeTrace(t, "n2")
	copySelf(t, "n2", killerPath)
	prolog, epilog := journaled(t)
	t.Logf("prolog: %v; epilog: %v", prolog, epilog)
	killed := func(program string, steps []step, restore func(id string)) {
		for _, at := range steps {
			t.Run(program+" in "+at.String(), func(t *testing.T) {
				again(t, at, func() string {
					c := catch(t, program, at)
					id := submit(t, "alice", "true", "-p", "cpu-sev", "-w", "n2")
					where := c.step()
					if where == missed {
						await(t, id, "COMPLETED")
						idle(t)
						return where
					}
					eventually(t, 60*time.Second, func() bool { return drained(t, "n2") != "" }, func() string { return must(t, "n0", "root", "sinfo", "-R") })
					restore(id)
					must(t, "n0", "root", "scontrol", "update", "NodeName=n2", "State=RESUME")
					return where
				})
				works(t, was)
			})
		}
	}
	killed("enclave-prolog", prolog, func(id string) {
		must(t, "n0", "root", "scancel", id)
		await(t, id, "CANCELLED")
		eventually(t, 30*time.Second, func() bool { return nodeTrace(t, "n2") == was }, func() string { return nodeTrace(t, "n2") })
	})
	killed("enclave-epilog", epilog, func(id string) { await(t, id, "COMPLETED") })
}

// enclaved dies while a prolog is in a step: the job runs at once or after a requeue, and no node is drained.
func TestP5TheVerifierDiesInEveryStepOfAProlog(t *testing.T) {
	idle(t)
	copySelf(t, "n2", killerPath)
	prolog, _ := journaled(t)
	for _, at := range prolog {
		t.Run(at.String(), func(t *testing.T) {
			again(t, at, func() string {
				c := catch(t, "enclave-prolog", at, "resume")
				id := submit(t, "alice", "true", "-p", "cpu-sev", "-w", "n2")
				eventually(t, 45*time.Second, func() bool { return c.said.Len() > 0 }, func() string { return "the killer says nothing" })
				require.NoError(t, labCommand("restart", "n0", "enclaved").Run())
				require.NoError(t, c.resume.Close())
				where := c.step()
				await(t, id, "COMPLETED")
				assert.Empty(t, drained(t, "n2"))
				idle(t)
				return where
			})
		})
	}
}
