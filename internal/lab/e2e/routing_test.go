//go:build e2e

package e2e_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// verdict is what `enclave report --json` says of a start of a job.
func verdict(t *testing.T, id string, args ...string) string {
	t.Helper()
	r := on(t, "n0", "root", append([]string{"enclave", "report", "--json", id}, args...)...)
	var out struct {
		Verdict string `json:"verdict"`
	}
	require.NoError(t, json.Unmarshal([]byte(r.out), &out), r.String())
	return out.Verdict
}

func TestEveryWayToStartAJobLeadsThroughTheGate(t *testing.T) {
	const say = `sh -c 'echo $ENCLAVE_VERDICT on $(hostname)'`
	t.Run("srun", func(t *testing.T) {
		r := on(t, "login", "alice", "srun", "-p", "cpu-sev", "-N", "2", "printenv", "ENCLAVE_VERDICT")
		assert.Equal(t, "simulated\nsimulated\n", r.out, r.errOut)
		idle(t)
	})
	t.Run("salloc, and two steps in it", func(t *testing.T) {
		r := on(t, "login", "alice", "salloc", "-p", "cpu-sev", "-N", "2", "sh", "-c", "srun "+say+"; srun -N1 "+say)
		assert.Equal(t, 3, strings.Count(r.out, "simulated on n"), r.String())
		idle(t)
	})
	t.Run("the elements of an array, each in an enclave of its own", func(t *testing.T) {
		first := submit(t, "alice", "srun "+say, "-p", "cpu-sev", "-N", "1", "--array=1-3", "--output=array-%a.out")
		must(t, "n0", "root", "true")
		var ids []string
		eventually(t, 120*time.Second, func() bool {
			ids = strings.Fields(on(t, "n0", "root", "sacct", "-X", "-n", "-P", "-j", first, "-s", "CD", "-o", "JobIDRaw").out)
			return len(ids) == 3
		}, func() string { return must(t, "n0", "root", "squeue") })
		for i, id := range ids {
			assert.Equal(t, "simulated", verdict(t, id), id)
			assert.Contains(t, must(t, "login", "alice", "cat", fmt.Sprintf("array-%d.out", i+1)), "simulated on n")
		}
		idle(t)
	})
	t.Run("a job in a reservation", func(t *testing.T) {
		must(t, "n0", "root", "scontrol", "create", "reservation", "ReservationName=r1", "Nodes=n2", "Users=alice", "StartTime=now", "Duration=10")
		t.Cleanup(func() { on(t, "n0", "root", "scontrol", "delete", "ReservationName=r1") })
		id := submit(t, "alice", say, "-p", "cpu-sev", "--reservation=r1")
		await(t, id, "COMPLETED")
		assert.Equal(t, "simulated on n2\n", output(t, "alice", id))
		must(t, "n0", "root", "scontrol", "delete", "ReservationName=r1")
		idle(t)
	})
}

func TestJobsThatDependOnEnclaves(t *testing.T) {
	first := submit(t, "alice", "sleep 1", "-p", "cpu-sev")
	after := submit(t, "alice", "true", "-p", "cpu-sev", "--dependency=afterok:"+first)
	never := submit(t, "alice", "true", "-p", "cpu-sev", "--dependency=afternotok:"+first)
	await(t, after, "COMPLETED")
	assert.Equal(t, "simulated", verdict(t, after))
	assert.Equal(t, "PENDING", field(t, never, "JobState"))
	must(t, "n0", "root", "scancel", never)
	idle(t)
}

func TestARequeuedJobGetsANewEnclave(t *testing.T) {
	id := submit(t, "alice", "echo $ENCLAVE_JOB; test \"$SLURM_RESTART_COUNT\" || sleep 60", "-p", "cpu-sev", "-N", "2", "--requeue", "--open-mode=append")
	started(t, id, "alice", "n1")
	must(t, "login", "alice", "scontrol", "requeue", id)
	await(t, id, "COMPLETED")
	assert.Regexp(t, `^`+id+`\.0\n(?s:.*)\n`+id+`\.1\n$`, output(t, "alice", id))
	for _, restart := range []string{"0", "1"} {
		assert.Equal(t, "simulated", verdict(t, id, "--restart", restart))
	}
	idle(t)
}

func TestNoSecondJobLandsOnASuspendedEnclave(t *testing.T) {
	id := submit(t, "alice", "srun -N2 sh -c 'sleep 6; echo $(hostname) lives'", "-p", "cpu-sev", "-N", "2", "-w", "n1,n2")
	// A job that is suspended while its step is being launched does not end on 24.11, nor does one of another partition.
	for _, node := range []string{"n1", "n2"} {
		eventually(t, 60*time.Second, func() bool { return on(t, node, "root", "pgrep", "-u", "alice", "-x", "sleep").status == 0 },
			func() string { return "no task runs on " + node })
	}
	must(t, "n0", "root", "scontrol", "suspend", id)
	second := submit(t, "bob", "touch ran", "-p", "cpu-sev", "-N", "1", "-w", "n1", "--chdir=/home/bob")
	// Slurm gives the suspended job's nodes away; the prolog there must not let the second job in.
	time.Sleep(5 * time.Second)
	assert.NotEqual(t, "COMPLETED", field(t, second, "JobState"))
	assert.NotZero(t, on(t, "login", "bob", "test", "-e", "ran").status, "nothing of the second job ran")
	must(t, "n0", "root", "scontrol", "resume", id)
	await(t, id, "COMPLETED")
	assert.Equal(t, 2, strings.Count(output(t, "alice", id), "lives"), "the tunnel and the steps came back")
	await(t, second, "COMPLETED")
	assert.NotContains(t, must(t, "n0", "root", "sinfo", "-h", "-R"), "enclave", "no node was drained")
	must(t, "login", "bob", "rm", "ran")
	idle(t)
}

// strange is what a user may call a job: every character that shells, JSON, SQL, Slurm's own
// formats and terminals give a meaning.
const strange = "a'b\"c`id`$(touch /tmp/pwned);|&<>{\"v\":\"protected\"}\\n%x%n\x1b[31m enclave={\"v\":\"x\"} ../.."

func TestAJobsNameAndCommentAreOnlyText(t *testing.T) {
	id := submit(t, "alice", "sleep 1", "-p", "cpu-sev", "-J", strange, "--comment="+strange, "--hold")
	must(t, "n0", "root", "scontrol", "update", "JobId="+id, "AdminComment=jobstats:"+`{"a":"B c"}`)
	must(t, "login", "alice", "scontrol", "release", id)
	await(t, id, "COMPLETED")
	idle(t)
	assert.Equal(t, "simulated", verdict(t, id))
	for _, host := range []string{"n0", "n1", "login"} {
		assert.NotZero(t, on(t, host, "root", "test", "-e", "/tmp/pwned").status, host)
	}
	for _, argv := range [][]string{{"enclave", "report", id}, {"enclave", "jobs"}, {"enclave", "why", id}} {
		r := on(t, "n0", "root", argv...)
		assert.NotContains(t, r.out+r.errOut, "\x1b", argv)
	}
	comment := ""
	eventually(t, 30*time.Second, func() bool {
		comment = must(t, "n0", "root", "sacct", "-X", "-n", "-P", "-j", id, "-o", "AdminComment")
		return strings.Contains(comment, "enclave={") && strings.Contains(comment, `jobstats:{"a":"B c"}`)
	}, func() string { return "AdminComment is " + comment })
	assert.Equal(t, 1, strings.Count(comment, "enclave={"), "one token, ours: %s", comment)
	t.Run("a tool that overwrites it afterwards takes nothing from the ledger", func(t *testing.T) {
		must(t, "n0", "root", "sacctmgr", "-i", "modify", "job", "where", "jobid="+id, "set", "AdminComment=js1:none") // 22.05 makes capitals small
		lines := acctOf(t, "alice", id)
		require.Len(t, lines, 1)
		assert.Equal(t, "simulated", lines[0].Verdict)
		assert.Equal(t, "js1:none\n", must(t, "n0", "root", "sacct", "-X", "-n", "-P", "-j", id, "-o", "AdminComment"), "nobody writes against another tool")
	})
}

func TestAJobThatCanNeverRunIsRefusedAtSubmit(t *testing.T) {
	assert.Contains(t, refused(t, "alice", "true", "-p", "cpu-sev", "-N", "40"), "E118: the site has 3 attested nodes, you asked for 40")
	id := submit(t, "alice", "true", "-p", "cpu-sev", "-N", "3", "--begin=now+1hour")
	r := on(t, "login", "alice", "scontrol", "update", "JobId="+id, "NumNodes=5")
	assert.NotZero(t, r.status)
	assert.Contains(t, []string{"3", "3-3"}, field(t, id, "NumNodes"))
	must(t, "n0", "root", "scancel", id)
}
