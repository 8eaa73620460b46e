//go:build e2e

package e2e_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestEscapeSlurm makes the attempts that go through Slurm's own options and commands. P1, P3, P4.
func TestEscapeSlurm(t *testing.T) {
	idle(t)
	must(t, "n1", "root", "sh", "-c", "echo LOOT-OF-BOB >"+secret+"; echo LOOT-OF-HERS >"+tenantTree+"/loot; chmod 755 "+otherTree+"; chmod 644 "+secret)
	t.Cleanup(func() {
		on(t, "n1", "root", "rm", "-rf", secret, tenantTree+mailbox, tenantTree+"/loot", tenantTree+"/planted", otherTree+"/planted")
		on(t, "n1", "root", "chmod", "770", otherTree)
	})
	t.Run("submission", func(t *testing.T) { judge(t, "options of sbatch", prison{}, sbatchAttempts()) })
	p := imprison(t)
	judge(t, "Slurm's commands", p, slurmAttempts(p))
	must(t, "n0", "root", "scancel", p.job)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(on(t, "n1", "root", "tail", "-n", "8", "/var/log/slurm-enclave.log"))
		}
	})
	idle(t)
	assert.Empty(t, drained(t, "n1"), "no attempt drains a node")
}

// whole submits a job of alice's with options, waits for its end and then has root look on the node.
func whole(look string, options ...string) func(*testing.T, string) string {
	return func(t *testing.T, script string) string {
		t.Helper()
		argv := append([]string{"sbatch", "--parsable", "-p", "cpu-sev", "-w", "n1", "--open-mode=append"}, options...)
		r := onWithInput(t, "login", "alice", "#!/bin/sh\n"+script+"\n", argv...)
		require.Zero(t, r.status, "%s", r)
		await(t, strings.TrimSpace(r.out), "COMPLETED", "FAILED")
		idle(t)
		return on(t, "n1", "root", "sh", "-c", look).String()
	}
}

func sbatchAttempts() []attempt {
	const outOfJob = "--output=/lustre/escape.out"
	read := "cat " + tenantTree + "/escape.out; rm -f " + tenantTree + "/escape.out"
	// A node whose file system is opened to all is drained before a job starts (E301), so the control is
	// the same option with a path that the user may take.
	own := func(run func(*testing.T, string) string) proof {
		return proof{"with a path of the tenant's own", func(t *testing.T, a attempt) string { t.Helper(); return run(t, a.try) }}
	}
	planted := func(tree string) string { return "cat " + tree + "/planted; rm -f " + tree + "/planted" }
	return []attempt{
		{
			name: "sbatch --output with a name as a path into the other tree", try: "echo LOOT",
			in:      whole(planted(otherTree), "--job-name=../astro/planted", "--output="+tenantTree+"/%x"),
			control: own(whole(planted(tenantTree), "--job-name=../lustre/planted", "--output=/lustre/%x")),
		},
		{
			name: "sbatch --input of the other tenant's file", try: "cat",
			in: whole(read, outOfJob, "--input="+secret), control: own(whole(read, outOfJob, "--input=/lustre/loot")),
		},
		{
			name: "sbatch --chdir into the other tree", try: "cat loot",
			in: whole(read, outOfJob, "--chdir="+otherTree), control: own(whole(read, outOfJob, "--chdir=/lustre")),
		},
		{
			name: "sbatch --error in a folder of root's", try: "echo LOOT >&2",
			in: whole("cat /opt/escape-*; rm -f /opt/escape-*", "--output=/dev/null", "--error=/opt/escape-%j"),
			control: proof{"the folder opened to all", func(t *testing.T, a attempt) string {
				t.Helper()
				must(t, "n1", "root", "chmod", "1777", "/opt")
				defer must(t, "n1", "root", "chmod", "755", "/opt")
				return a.in(t, a.try)
			}},
		},
	}
}

func slurmAttempts(p prison) []attempt {
	by := func(host, user string) func(*testing.T, string) string {
		return func(t *testing.T, s string) string {
			t.Helper()
			return onWithInput(t, host, user, s+"\n", "timeout", "20", "sh").String()
		}
	}
	as := func(how, host, user string) proof {
		return proof{how, func(t *testing.T, a attempt) string { t.Helper(); return by(host, user)(t, a.try) }}
	}
	owner, root := as("by the job's own user", "login", "alice"), as("by root", "n0", "root")
	opened1 := opened(p, "the folder opened to all", "chmod 1777 /run/slurm-enclave", "chmod 700 /run/slurm-enclave")
	withGo := func() proof {
		return proof{"with GO", func(t *testing.T, a attempt) string { t.Helper(); return by("login", "alice")(t, a.try) }}
	}
	gateless := func(t *testing.T, s string) string {
		t.Helper()
		return withoutGo(t, p, func() string { return by("login", "alice")(t, s) })
	}
	const trigger = "strigger --set --node=n3 --down --program=/bin/true && echo LOOT"
	const planted = "/run/slurm-enclave/escape-copy"
	return []attempt{
		{name: "sbcast beside the gate", control: opened1, try: "sbcast -f /bin/true " + planted + " && test -s " + planted + " && echo LOOT; rm -f " + planted},
		{name: "srun --bcast beside the gate", control: opened1, try: "srun --overlap --bcast=" + planted + " /bin/true; test -e " + planted + " && echo LOOT; rm -f " + planted},
		{
			name: "a terminal in a step without GO", in: gateless, control: withGo(),
			try: "script -qec 'srun --jobid=" + p.job + " --overlap --pty echo LOOT' /dev/null",
		},
		{
			name: "srun with a configuration of the user's own, without GO", in: gateless, control: withGo(),
			try: "mkdir -p ~/own; cp -r /etc/slurm/slurm.conf /etc/slurm/slurm.conf.d ~/own/; echo PlugStackConfig=/dev/null >>~/own/slurm.conf; SLURM_CONF=$HOME/own/slurm.conf srun --jobid=" + p.job + " --overlap echo LOOT; rm -r ~/own",
		},
		{name: "the user's own AdminComment", in: by("login", "alice"), control: root, try: "scontrol update job=" + p.job + " AdminComment=forged && echo LOOT"},
		{
			name: "the user's own AdminComment in accounting", in: by("login", "alice"), control: root,
			try: "j=$(sacct -a -X -n -P -o JobIDRaw,State | sed -n 's/|COMPLETED$//p' | tail -1); old=$(sacct -X -n -P -j $j -o AdminComment%4000); sacctmgr -i modify job where jobid=$j set AdminComment=\"$old\" && echo LOOT",
		},
		{name: "the job's script for another user", in: by("login", "bob"), control: owner, try: "scontrol write batch_script " + p.job + " - | grep mailbox && echo LOOT"},
		{name: "a signal to another user's job", in: by("login", "bob"), control: owner, try: "scancel -b -s CONT " + p.job + " && echo LOOT"},
		{name: "a change of another user's job", in: by("login", "bob"), control: owner, try: "scontrol update job=" + p.job + " Comment=seen && echo LOOT"},
		{name: "the report of another user's job", in: by("login", "bob"), control: owner, try: "enclave report " + p.job + " >/dev/null && echo LOOT"},
		{name: "ledger, receipts and keys on the controller", in: by("n0", "alice"), control: root, try: "cat /var/lib/slurm-enclave/ledger.db /var/lib/slurm-enclave/verifier.key >/dev/null && echo LOOT"},
		{
			name: "the receipt of another user's job", in: by("login", "bob"), control: owner,
			try: "j=$(sacct -a -X -n -P -r cpu-sev -o JobIDRaw,State | sed -n 's/|COMPLETED$//p' | head -1); enclave receipt export $j -o - >/dev/null && echo LOOT",
		},
		{name: "the node's state by the user", in: by("login", "alice"), control: root, try: "scontrol update nodename=n3 comment=x && echo LOOT"},
		{
			name: "a trigger of the user's", in: by("login", "alice"), try: trigger,
			control: proof{"by Slurm's own user", func(t *testing.T, _ attempt) string {
				t.Helper()
				return by("n0", "root")(t, "setpriv --reuid=slurm --regid=slurm --clear-groups sh -c '"+trigger+"; strigger --clear --quiet --user=slurm'")
			}},
		},
		{name: "a container by Slurm (--container)", in: gateless, control: withGo(), try: "mkdir -p ~/b; srun --jobid=" + p.job + " --overlap --container=$HOME/b echo LOOT; srun --jobid=" + p.job + " --overlap echo LOOT; rm -r ~/b"},
	}
}
