//go:build e2e

package e2e_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// loot is what an attempt prints when it gets through.
const loot = "LOOT"

// attempt is one way that a user could try to get out. Try is a shell script that runs inside a
// real job, as the job's user, and prints loot when it gets through. Control is the same script
// where the protection is off, or in the hands of somebody who may: it shows that the attempt
// would be seen to succeed.
type attempt struct {
	name    string
	try     string
	control proof
	in      func(t *testing.T, script string) string // where it runs; nil is the job's batch script
}

// proof runs an attempt with its protection off. How says what was different.
type proof struct {
	how string
	run func(t *testing.T, a attempt) string
}

// row is what became of an attempt.
type row struct {
	name, enclave, control string
	held, shown            bool
}

func (r row) String() string {
	verdict := "HELD"
	switch {
	case !r.held:
		verdict = "ESCAPED"
	case !r.shown:
		verdict = "NOT SHOWN"
	}
	return fmt.Sprintf("%-9s | %-58s | enclave: %-60s | control: %s", verdict, r.name, r.enclave, r.control)
}

// prison is a running job of alice's on n1 that does what the test says, as her, inside its
// batch script.
type prison struct {
	job string
}

const (
	tenantTree = "/srv/enclave-fs/lab/proj/digimed" // of alice; /lustre in her jobs
	otherTree  = "/srv/enclave-fs/lab/proj/astro"   // of bob
	mailbox    = "/.escape"                         // in the subtree: scripts go in, answers come out
)

// obey is the job's script: it runs each script that the test puts into the mailbox.
const obey = `: mailbox; umask 000; mkdir -p /lustre/.escape; cd /lustre
while :; do
	for f in /lustre/.escape/*.do; do
		[ -e "$f" ] || continue
		b=${f%.do}; mv "$f" "$b.sh"
		timeout -k 1 20 sh "$b.sh" >"$b.out" 2>&1 </dev/null
		echo $? >"$b.end"
	done
	sleep 0.05
done`

// imprison starts the job; it ends with the test.
func imprison(t *testing.T) prison {
	t.Helper()
	id := submit(t, "alice", obey, "--partition=cpu-sev", "--nodes=1", "--nodelist=n1")
	t.Cleanup(func() { on(t, "n0", "root", "scancel", id) })
	started(t, id, "alice", "n1")
	eventuallyOn(t, "n1", "test", "-d", tenantTree+mailbox)
	return prison{id}
}

func eventuallyOn(t *testing.T, host string, argv ...string) {
	t.Helper()
	const wait = `for i in $(seq 300); do "$@" && exit; sleep 0.1; done; exit 1`
	require.Zero(t, on(t, host, "root", append([]string{"sh", "-c", wait, "sh"}, argv...)...).status, argv)
}

// run has the job run a script and returns what it printed.
func (p prison) run(t *testing.T, script string) string {
	t.Helper()
	const hand = `d=` + tenantTree + mailbox + `; n=$$; cat >$d/$n.part && chmod 755 $d/$n.part && mv $d/$n.part $d/$n.do
for i in $(seq 600); do [ -e $d/$n.end ] && break; sleep 0.05; done
cat $d/$n.out; cat $d/$n.end >/dev/null; s=$?; rm -f $d/$n.*; exit $s`
	r := onWithInput(t, "n1", "root", script+"\n", "sh", "-c", hand)
	require.Zero(t, r.status, "the job did not answer: %s", r)
	return r.out
}

// adopted runs a script as the job's user beside the job's steps, as an ssh login does.
func adopted(t *testing.T, script string) string {
	t.Helper()
	return onWithInput(t, "n1", "alice", script+"\n", "timeout", "20", "sh").String()
}

// asRoot is a control: the node's root may do it.
func asRoot() proof {
	return proof{"by the node's root", func(t *testing.T, a attempt) string {
		t.Helper()
		return onWithInput(t, "n1", "root", a.try+"\n", "timeout", "20", "sh").String()
	}}
}

// opened is a control: root takes the protection away on n1, the attempt is made again in the
// same job, and root puts it back.
func opened(p prison, how, off, back string) proof {
	return proof{how, func(t *testing.T, a attempt) string {
		t.Helper()
		defer func() { must(t, "n1", "root", "sh", "-c", back) }()
		must(t, "n1", "root", "sh", "-c", off)
		if a.in != nil {
			return a.in(t, a.try)
		}
		return p.run(t, a.try)
	}}
}

var blanks = regexp.MustCompile(`\s+`)

// gist is the beginning of an output on one line.
func gist(out string) string {
	out = strings.TrimSpace(blanks.ReplaceAllString(out, " "))
	if out == "" {
		out = "nothing"
	}
	if len(out) > 60 {
		out = out[:57] + "..."
	}
	return strings.ToValidUTF8(out, "?")
}

// judge makes all attempts and prints the table.
func judge(t *testing.T, title string, p prison, attempts []attempt) {
	t.Helper()
	var rows []row
	for _, a := range attempts {
		t.Run(a.name, func(t *testing.T) {
			in := a.in
			if in == nil {
				in = p.run
			}
			out := in(t, a.try)
			r := row{name: a.name, enclave: gist(out), held: !strings.Contains(out, loot)}
			assert.True(t, r.held, "it got through:\n%s\n%s", a.try, out)
			off := a.control.run(t, a)
			r.shown = strings.Contains(off, loot)
			assert.True(t, r.shown, "control (%s): it should have got through:\n%s\n%s", a.control.how, a.try, off)
			r.control = a.control.how + ": " + map[bool]string{true: "got through", false: gist(off)}[r.shown]
			rows = append(rows, r)
		})
	}
	tabulate(title, rows)
}

// tabulate prints the escape table, row by row, with its counts.
func tabulate(title string, rows []row) {
	var b strings.Builder
	held, shown := 0, 0
	for _, r := range rows {
		fmt.Fprintln(&b, "escape:", r)
		if r.held {
			held++
		}
		if r.shown {
			shown++
		}
	}
	fmt.Fprintf(&b, "escape: %s: attempts=%d held=%d escaped=%d shown_by_control=%d\n", title, len(rows), held, len(rows)-held, shown)
	fmt.Fprint(os.Stderr, b.String())
}
