//go:build e2e

package e2e_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// leftover is something that a job leaves behind on purpose. Leave is a shell script of the job's;
// look is one of root's on the node, which prints loot while the thing is there.
type leftover struct {
	name, leave, look string
	who               string // leaves it beside the job's steps; "" is the job itself
}

const aliceEverywhere = `find %s -xdev -uid 2001 2>/dev/null | grep -q . && echo LOOT`

func leftovers(t *testing.T) []leftover {
	t.Helper()
	files := func(dir string) string { return strings.ReplaceAll(aliceEverywhere, "%s", dir) }
	running := func(pattern string) string { return "pgrep -u 2001 -f '" + pattern + "' >/dev/null && echo LOOT" }
	const asAlice = "setpriv --reuid=2001 --regid=2001 --clear-groups "
	const asBob = "setpriv --reuid=2002 --regid=2002 --clear-groups "
	// Labs of one machine share its keyrings: one that was revoked under alice would be in the way of hers elsewhere.
	nobody := fmt.Sprintf("setpriv --reuid=%[1]d --regid=%[1]d --clear-groups ", 20000+os.Getpid()%30000)
	const program = "env " + escapeIn + "=keys " + escapeProgram
	all := []leftover{
		{"a file in /tmp", "echo x >/tmp/left; mkfifo /tmp/fifo; ln -s / /tmp/link", files("/tmp"), ""},
		{"a file in /var/tmp", "echo x >/var/tmp/left", files("/var/tmp"), ""},
		{"a file in /dev/shm", "echo x >/dev/shm/left", files("/dev/shm"), ""},
		{"a file in /run/lock, where everybody may write", "mkdir -p /run/lock/left/deep; echo x >/run/lock/left/deep/f; chmod 000 /run/lock/left/deep", files("/run/lock"), ""},
		{"a tree of 2000 folders within each other", `perl -e 'chdir "/run/lock" or die; for (1..2000) { mkdir "d"; chdir "d" or die } open F, ">f"'`, "ls -d /run/lock/d 2>/dev/null && echo LOOT", ""},
		{"a crontab", "echo '* * * * * id' >/var/spool/cron/crontabs/alice", "ls /var/spool/cron/crontabs/alice 2>/dev/null && echo LOOT", ""},
		{"an at job", "echo id >/var/spool/cron/atjobs/a0001", "ls /var/spool/cron/atjobs/a0001 2>/dev/null && echo LOOT", ""},
		{"a user manager that lingers", "touch /var/lib/systemd/linger/alice", "ls /var/lib/systemd/linger/alice 2>/dev/null && echo LOOT", ""},
		{"a System V segment", "ipcmk -M 4096 >/dev/null", "ipcs -m | grep -q alice && echo LOOT", ""},
		{"a System V queue and a semaphore", "ipcmk -Q >/dev/null; ipcmk -S 1 >/dev/null", "ipcs -q -s | grep -q alice && echo LOOT", ""},
		{"a POSIX queue", escapeIn + "=queue " + escapeProgram + " left", "mount -t mqueue x /mnt && { " + files("/mnt") + "; umount /mnt; }", ""},
		{"a key in the user's keyring", program + " add enclave-left", asAlice + program + " find enclave-left", ""},
		{"a user's keyring that is revoked", nobody + "perl -e 'syscall 250, 3, -4, 0, 0, 0'", nobody + program + " add enclave-probe || echo LOOT", "root"},
		{"a core dump", "(ulimit -c unlimited; cd /tmp; sh -c 'kill -SEGV $$')", "find / -xdev -uid 2001 -name 'core*' 2>/dev/null; find /tmp -xdev -uid 2001 -name 'core*' | grep . && echo LOOT", ""},
		{"a daemon of double fork and setsid", "setsid sh -c 'sleep 7771 &' </dev/null >/dev/null 2>&1", running("sleep 7771"), ""},
		{"a stopped process", "setsid sh -c 'kill -STOP $$; : 7772' </dev/null >/dev/null 2>&1 &", running(": 7772"), ""},
		{"a process that forks and forks", `setsid perl -e 'for (;;) { fork and exit; select undef, undef, undef, 0.001; $0 = "fork7773" }' </dev/null >/dev/null 2>&1 &`, "for i in $(seq 40); do " + running("7773") + " && exit; done", ""},
		{"a user namespace that holds the view", "setsid unshare -Urm sh -c 'sleep 7774' </dev/null >/dev/null 2>&1 &", "grep -l 'slurm-enclave:' /proc/[0-9]*/mountinfo | grep -qv self && echo LOOT", ""},
		{"a setuid shell of the user's own in /tmp", "cp /bin/sh /tmp/s; chmod 4755 /tmp/s; cp /bin/sh /run/lock/s; chmod 4755 /run/lock/s", "ls /tmp/s /run/lock/s 2>/dev/null | grep -q . && echo LOOT", ""},
		{"a process that waits for a file system of its own (FUSE), which hears no signal", "setsid unshare -Urm perl -e '" + deafFUSE + "' </dev/null 2>&1 & sleep 1", running("fuse7776"), ""},
		{"an abstract socket", `setsid perl -MSocket -e 'socket S, AF_UNIX, SOCK_STREAM, 0; bind S, pack("Sa*", AF_UNIX, "\0left7775"); listen S, 1; sleep 1000' </dev/null >/dev/null 2>&1 &`, "grep -q left7775 /proc/net/unix && echo LOOT", ""},
		{
			"files, IPC and a key of another user's, whom the job became",
			asBob + "sh -c 'mkdir -m 700 /run/lock/bobs; echo x >/run/lock/bobs/f; ipcmk -M 4096 >/dev/null; " + program + " add enclave-left'",
			"{ find /run/lock -uid 2002; ipcs -m | grep bob; " + asBob + program + " find enclave-left; } 2>/dev/null | grep -v ^keyctl | grep . && echo LOOT", "root",
		},
		{"a file of a sub-id that only the name service knows", "touch /run/lock/sub; chown 3000000:3000000 /run/lock/sub", "ls /run/lock/sub 2>/dev/null && echo LOOT", "root"},
		{"a file system of the user's own (FUSE), in a directory of his on the node's disk", "mkdir -p /opt/alices; perl -e '" + ownFUSE + "'", "grep -q ' /opt/alices ' /proc/mounts && echo LOOT", "root"},
	}
	if strings.Contains(on(t, "n1", "root", "srun", "--mpi=list").String(), "\tpmix\n") { // as Slurm was built
		all = append(all, leftover{"a directory of the PMIx server's that the user has filled while slurmstepd took it away", pmixDirectory, "find /var/spool/slurmd -uid 2001 -name 'pmix.*' 2>/dev/null | grep -q . && echo LOOT", ""})
	}
	return all
}

// deafFUSE mounts a file system that answers its first question alone, and has a process ask it, which
// holds the connection open as well.
const deafFUSE = `open F, "+<` + fuseDevice + `" or die "fuse: $!"; my $o = "fd=" . fileno(F) . ",rootmode=40000,user_id=0,group_id=0"; my ($s, $t, $y) = ("x", "/mnt", "fuse");
syscall(165, $s, $t, $y, 0, $o) == 0 or die "mount: $!"; if (!fork) { $0 = "fuse7776"; stat "/mnt/x"; exit }
sysread F, my $b, 1 << 18 or die "read: $!"; my ($n, $op, $id) = unpack "LLQ", $b;
syswrite F, pack("LlQ LLLL SSLL SSL x28", 80, 0, $id, 7, 31, 65536, 0, 16, 12, 65536, 1, 0, 0, 0) or die "write: $!";
sysread F, $b, 1 << 18; $0 = "fuse7776"; sleep 1000`

// ownFUSE is what fusermount does for a user.
const ownFUSE = `open F, "+<` + fuseDevice + `" or die "fuse: $!"; my $o = "fd=" . fileno(F) . ",rootmode=40000,user_id=2001,group_id=2001"; my ($s, $t, $y) = ("x", "/opt/alices", "fuse");
syscall(165, $s, $t, $y, 0, $o) == 0 or die "mount: $!"`

// pmixDirectory has the directory that slurmstepd makes for a step's PMIx server outlive the step: a file that
// comes behind slurmstepd's look keeps it. It is tried until that is so.
const pmixDirectory = `for n in 0 1 2 3 4 5; do
	srun --overlap --mpi=pmix sleep 0.3 &
	perl -e 'my $end = time + 6; my $i = 0; while (time < $end) { my ($d) = glob "/var/spool/slurmd/pmix.$ENV{SLURM_JOB_ID}.*"; next unless $d && -o $d; chmod 01777, $d; for (1..200) { last unless open F, ">", "$d/" . $i++ } exit if !-e $d }'
	wait; ls -d /var/spool/slurmd/pmix.$SLURM_JOB_ID.* && break
done`

// TestEscapeLeftovers has a job leave all it can, and looks for it while the job runs and after it
// has ended. Cron, at and logind do not run in the lab: root opens their folders to the user, as
// their setuid programs do. P4.
func TestEscapeLeftovers(t *testing.T) {
	idle(t)
	copySelf(t, "n1", escapeProgram)
	const spools = "/var/spool/cron/crontabs /var/spool/cron/atjobs /var/lib/systemd/linger"
	must(t, "n1", "root", "sh", "-c", "chmod 755 "+escapeProgram+"; mkdir -p "+spools+" /run/lock; chmod 1777 /run/lock "+spools+"; "+devices)
	t.Cleanup(func() {
		on(t, "n1", "root", "sh", "-c", "umount /opt/alices; rm -f "+tunDevice+" "+fuseDevice+"; rmdir /opt/alices")
	})
	t.Cleanup(func() { on(t, "n1", "root", "rmdir", "/var/spool/cron/atjobs", "/var/lib/systemd/linger") })
	p := imprison(t)
	t.Cleanup(func() { on(t, "n1", "root", "rm", "-rf", tenantTree+mailbox) })
	all := leftovers(t)
	rows := make([]row, len(all))
	for i, l := range all {
		said, seen := "", ""
		for range 3 { // the keyrings are the machine's: an epilog of another lab may be quicker than the look
			if l.who == "" {
				said = p.run(t, l.leave)
			} else {
				said = onWithInput(t, "n1", l.who, l.leave+"\n", "sh").String()
			}
			time.Sleep(100 * time.Millisecond)
			if seen = on(t, "n1", "root", "sh", "-c", l.look).out; strings.Contains(seen, loot) {
				break
			}
		}
		rows[i] = row{name: l.name, control: "while the job runs: it is seen", shown: strings.Contains(seen, loot)}
		assert.True(t, rows[i].shown, "control: %s: it should be seen while the job runs: %s; %s", l.name, said, seen)
	}
	must(t, "n0", "root", "scancel", p.job)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(on(t, "n1", "root", "tail", "-n", "5", "/var/log/slurm-enclave.log"))
		}
	})
	idle(t)
	for i, l := range all {
		seen := on(t, "n1", "root", "sh", "-c", l.look).out
		rows[i].held = !strings.Contains(seen, loot)
		rows[i].enclave = "after the job: " + gist(seen)
		assert.True(t, rows[i].held, "%s is left: %s", l.name, seen)
	}
	tabulate("leftovers", rows)
	assert.Empty(t, drained(t, "n1"), "nobody's leftovers drain a node")
	id := submit(t, "bob", "find / -xdev -user alice 2>/dev/null; ls -A /tmp /var/tmp /dev/shm; ipcs -mq | grep alice; grep -c left7775 /proc/net/unix", "--partition=cpu-sev", "--nodes=1", "--nodelist=n1")
	await(t, id, "COMPLETED", "FAILED")
	require.Equal(t, "/dev/shm:\n\n/tmp:\n\n/var/tmp:\n0\n", output(t, "bob", id), "the next job finds nothing of it")
	idle(t)
}
