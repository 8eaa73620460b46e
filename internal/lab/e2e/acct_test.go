//go:build e2e

package e2e_test

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type acctLine struct {
	Job      uint32  `json:"job"`
	Restart  *uint32 `json:"restart"`
	User     string  `json:"user"`
	State    *string `json:"state"`
	Verdict  string  `json:"verdict"`
	Attested *int    `json:"nodes_attested"`
	Receipt  *string `json:"receipt"`
	Name     string  `json:"name"`
	Code     *string `json:"code"`
	Element  *string `json:"job_id"`
	Account  string  `json:"account"`
}

// acctOf are the lines of one job, as a user is shown them.
func acctOf(t *testing.T, user, id string, options ...string) []acctLine {
	t.Helper()
	var lines []acctLine
	for _, l := range allAcct(t, user, append([]string{"--since=1d"}, options...)...) {
		if fmt.Sprint(l.Job) == id {
			lines = append(lines, l)
		}
	}
	return lines
}

// Accounting and ledger, joined: before and after the end, each start of a requeued job by itself, and
// jobs outside enclaves as such.
func TestAcctJoinsAccountingWithTheLedger(t *testing.T) {
	idle(t)
	const evil = "=cmd|' /C calc'!A0\n1|x"
	id := submit(t, "alice", "srun true; sleep 300", "--partition=cpu-sev", "--nodes=2", "--job-name="+evil)
	plain := submit(t, "alice", "true", "--partition=cpu")
	started(t, id, "alice", "n1")
	var running []acctLine
	eventually(t, 30*time.Second, func() bool { // slurmctld tells slurmdbd when it finds the time
		running = acctOf(t, "alice", id)
		return len(running) == 1 && running[0].State != nil
	}, func() string { b, _ := json.MarshalIndent(running, "", " "); return string(b) })
	assert.Equal(t, "simulated", running[0].Verdict)
	assert.Equal(t, "RUNNING", *running[0].State)
	assert.Equal(t, 2, *running[0].Attested)
	assert.Nil(t, running[0].Receipt, "not before it is over")
	assert.Equal(t, evil, running[0].Name)

	must(t, "n0", "root", "scontrol", "requeue", id)
	eventually(t, 90*time.Second, func() bool { return field(t, id, "Restarts") == "1" && field(t, id, "JobState") == "RUNNING" },
		func() string { return must(t, "n0", "root", "scontrol", "show", "job", id) })
	started(t, id, "alice", "n1")
	must(t, "n0", "root", "scancel", id)
	await(t, id, "CANCELLED")
	idle(t)
	var lines []acctLine
	eventually(t, 60*time.Second, func() bool {
		lines = acctOf(t, "alice", id)
		return len(lines) == 2 && lines[0].Receipt != nil && lines[1].Receipt != nil && lines[0].State != nil && lines[1].State != nil
	}, func() string { b, _ := json.MarshalIndent(lines, "", " "); return string(b) })
	for i, l := range lines {
		assert.EqualValues(t, i, *l.Restart, "each start once, in order")
		assert.Equal(t, "simulated", l.Verdict)
		assert.Equal(t, "alice", l.User)
	}
	assert.Equal(t, "REQUEUED", *lines[0].State)
	assert.Contains(t, *lines[1].State, "CANCELLED")
	await(t, plain, "COMPLETED")
	outside := acctOf(t, "alice", plain)
	require.Len(t, outside, 1)
	require.NotNil(t, outside[0].State)
	assert.Equal(t, "none", outside[0].Verdict)
	assert.Nil(t, outside[0].Attested)

	t.Run("everybody sees what they may", func(t *testing.T) {
		assert.Empty(t, acctOf(t, "bob", id))
		assert.Empty(t, acctOf(t, "bob", id, "--account=digimed"))
		assert.Len(t, acctOf(t, "root", id), 2)
		assert.Empty(t, acctOf(t, "root", id, "--account=astro"))
		assert.Empty(t, acctOf(t, "root", id, "--own"))
		assert.Equal(t, 7, on(t, "login", "carol", "enclave", "report", id).status)
		must(t, "n0", "root", "sacctmgr", "-i", "add", "coordinator", "account=digimed", "names=carol")
		t.Cleanup(func() {
			must(t, "n0", "root", "sacctmgr", "-i", "delete", "coordinator", "where", "account=digimed", "names=carol")
		})
		assert.Len(t, acctOf(t, "carol", id), 2, "who coordinates the account")
		assert.Zero(t, on(t, "login", "carol", "enclave", "report", id).status)
	})
	t.Run("text and CSV", func(t *testing.T) {
		screen := must(t, "login", "alice", "enclave", "acct", "--since=1d")
		assert.True(t, strings.HasPrefix(screen, "SIMULATED: "), screen)
		assert.Contains(t, screen, "none")
		rows, err := csv.NewReader(strings.NewReader(must(t, "login", "alice", "enclave", "acct", "--since=1d", "--format=csv"))).ReadAll()
		require.NoError(t, err)
		var names []string
		for _, r := range rows {
			if r[0] == id {
				names = append(names, r[len(r)-1])
			}
		}
		assert.Equal(t, []string{"'=cmd|' /C calc'!A0?1|x", "'=cmd|' /C calc'!A0?1|x"}, names)
	})
}

// A job whose first start met a broken node, and whose second ran: two lines, by their numbers and verdicts, in
// accounting as in the ledger; and what --since and --account leave out.
func TestAcctTellsARefusedStartFromTheOneThatRan(t *testing.T) {
	idle(t)
	began := strings.TrimSpace(must(t, "login", "alice", "date", "+%Y-%m-%dT%H:%M:%S"))
	setFault(t, "n2", `{"old_tcb":true}`)
	id := submit(t, "alice", "srun true", "--partition=cpu-sev", "--nodes=2", "--nodelist=n1,n2")
	eventually(t, 60*time.Second, func() bool { return drained(t, "n2") != "" }, func() string { return must(t, "n0", "root", "sinfo", "-R") })
	await(t, id, "PENDING") // n2's prolog has told Slurm of its failure, too
	setFault(t, "n2", `{}`)
	resume(t, "n2")
	await(t, id, "COMPLETED")
	idle(t)
	array := submit(t, "alice", "true", "--partition=cpu-sev", "--array=1-2", "--output=/dev/null")
	var lines []acctLine
	eventually(t, 60*time.Second, func() bool {
		lines = acctOf(t, "alice", id, "--since="+began)
		return len(lines) == 2 && lines[0].State != nil && lines[1].State != nil && *lines[1].State == "COMPLETED" && lines[1].Receipt != nil
	}, func() string { b, _ := json.MarshalIndent(lines, "", " "); return string(b) })
	assert.Equal(t, "refused", lines[0].Verdict)
	require.NotNil(t, lines[0].Code)
	assert.Regexp(t, `^E2\d\d$`, *lines[0].Code)
	assert.Equal(t, "REQUEUED", *lines[0].State)
	assert.NotNil(t, lines[0].Receipt, "a refused start has one, too")
	assert.EqualValues(t, 0, *lines[0].Restart)
	assert.EqualValues(t, 1, *lines[1].Restart)
	assert.Equal(t, "simulated", lines[1].Verdict)
	assert.Nil(t, lines[1].Code)
	assert.Equal(t, 2, *lines[1].Attested)

	var elements []string
	eventually(t, 90*time.Second, func() bool {
		elements = nil
		for _, l := range allAcct(t, "alice", "--since="+began) {
			if l.Element != nil && strings.HasPrefix(*l.Element, array+"_") && l.State != nil && *l.State == "COMPLETED" && l.Verdict == "simulated" {
				elements = append(elements, *l.Element)
			}
		}
		return len(elements) == 2
	}, func() string { return fmt.Sprint(elements) })
	assert.ElementsMatch(t, []string{array + "_1", array + "_2"}, elements)
	idle(t)
	time.Sleep(1100 * time.Millisecond) // accounting counts in seconds
	after := strings.TrimSpace(must(t, "login", "alice", "date", "+%Y-%m-%dT%H:%M:%S"))
	assert.Empty(t, allAcct(t, "alice", "--since="+after), "what was over before")
	assert.Empty(t, acctOf(t, "alice", id, "--account=astro"))
	for _, l := range allAcct(t, "root", "--since="+began, "--account=digimed") {
		assert.Equal(t, "digimed", l.Account)
	}
}

// allAcct are all lines that a user is shown.
func allAcct(t *testing.T, user string, options ...string) []acctLine {
	t.Helper()
	var list struct{ Jobs []acctLine }
	require.NoError(t, json.Unmarshal([]byte(must(t, "login", user, append([]string{"enclave", "acct", "--format=json"}, options...)...)), &list))
	return list.Jobs
}
