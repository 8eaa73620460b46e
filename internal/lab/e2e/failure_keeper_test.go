//go:build e2e && failures

package e2e_test

import (
	"testing"
)

// The keeper is killed in each step that prolog and epilog journal.
func TestFailuresOfTheKeeper(t *testing.T) {
	f := newFailures(t, "keeper killed")
	copySelf(t, "n2", killerPath)
	prolog, epilog := journaled(t)
	// Its parent, the prolog, stands still: it is dead when nothing but its name is left.
	kill := func(string) {
		on(t, "n2", "root", "sh", "-c", "p=$(pgrep -o -x enclave-keeper) || exit; kill -KILL $p; while [ -e /proc/$p/fd/0 ] || [ $(ls /proc/$p/task | wc -l) -gt 1 ]; do :; done")
	}
	for _, at := range prolog {
		f.row(t, "the keeper is killed in the prolog's "+at.String(), promise{
			job: "COMPLETED", starts: "refused E[0-9]+; simulated", meets: "PENDING", drained: map[string]string{"n2": "^enclave:E[24]"},
		}, func(t *testing.T) string {
			id := interrupted(t, "enclave-prolog", at, kill, "enclave-keeper")
			awaitDrain(t, "n2")
			return id
		})
	}
	for _, at := range epilog {
		f.row(t, "the keeper is killed in the epilog's "+at.String(), promise{job: "COMPLETED", starts: "simulated"}, func(t *testing.T) string {
			return interrupted(t, "enclave-epilog", at, kill)
		})
	}
}
