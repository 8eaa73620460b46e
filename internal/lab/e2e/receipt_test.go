//go:build e2e

package e2e_test

import (
	"bytes"
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite" // the ledger's driver

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/receipt"
)

// exported is a receipt as its job's owner gets it, in the file that is named.
func exported(t *testing.T, job, file string) string {
	t.Helper()
	eventually(t, 60*time.Second, func() bool {
		return on(t, "login", "alice", "enclave", "receipt", "export", job, "-o", file).status == 0
	}, func() string { return on(t, "login", "alice", "enclave", "receipt", "export", job).String() })
	return strings.TrimSpace(must(t, "login", "alice", "pwd")) + "/" + file
}

// verify checks a receipt where there is no network, and no configuration that it would read.
func verify(t *testing.T, args ...string) result {
	t.Helper()
	argv := append([]string{"unshare", "-n", "enclave", "--config", "/nonexistent", "receipt", "verify"}, args...)
	return on(t, "login", "root", argv...)
}

func TestP6AReceiptIsCheckedWithoutNetworkAndConfiguration(t *testing.T) {
	idle(t)
	id := submit(t, "alice", "srun hostname", "--partition=cpu-sev", "--nodes=3")
	early := on(t, "login", "alice", "enclave", "receipt", "export", id)
	assert.NotZero(t, early.status, "there is none while it runs: %s", early)
	await(t, id, "COMPLETED")
	path := exported(t, id, "r-"+id+".json")
	key := path + ".pem"
	must(t, "login", "alice", "sh", "-c", "enclave receipt key --simulated >"+key)

	good := verify(t, "--allow-simulated", "--key", key, path)
	require.Zero(t, good.status, "%s", good)
	first, _, _ := strings.Cut(good.out, "\n")
	assert.Equal(t, "SIMULATED: proves nothing about hardware", first)
	for _, want := range []string{"n1, evidence (job", "n2, evidence (job", "n3, evidence (job", "signature", "report_data", "measurement", "roster_keys", "pinned by you", "[attested node]", "closed again"} {
		assert.Contains(t, good.out, want)
	}
	assert.NotContains(t, good.out, "[AMD hardware]")
	assert.NotContains(t, good.out, "no report", "all nodes have told")
	t.Run("each node's last word is what it read back from its kernel", func(t *testing.T) {
		o, err := receipt.Open([]byte(must(t, "login", "alice", "cat", path)))
		require.NoError(t, err)
		require.Len(t, o.Statement.Predicate.Nodes, 3)
		for _, n := range o.Statement.Predicate.Nodes {
			results := map[string]enclave.CheckResult{}
			for _, c := range n.Teardown.Checks {
				results[c.Name] = c.Result
			}
			for _, kind := range []string{"boot", "links", "rules", "routes", "tables", "sockets", "mounts", "processes", "files", "ipc"} {
				assert.Equal(t, enclave.CheckPass, results["closed."+kind], "%s: %s", n.Name, kind)
			}
			assert.True(t, n.Teardown.Closed, n.Name)
			assert.Positive(t, n.Teardown.TookMS, n.Name)
			assert.Contains(t, must(t, n.Name, "root", "sh", "-c", "grep msg=closed /var/log/slurm-enclave.log | grep job="+id), "as recorded: boot links rules routes tables sockets")
		}
	})
	t.Run("without leave a simulated one is status 3", func(t *testing.T) {
		assert.Equal(t, 3, verify(t, path).status)
	})
	t.Run("a flipped byte is status 6", func(t *testing.T) {
		file := []byte(must(t, "login", "alice", "cat", path))
		for _, at := range []int{0, 20, len(file) / 3, len(file) / 2, len(file) - 60, len(file) - 1} {
			spoilt := bytes.Clone(file)
			spoilt[at] ^= 1
			require.Zero(t, onWithInput(t, "login", "root", string(spoilt), "sh", "-c", "cat >/tmp/spoilt.json").status)
			assert.Equal(t, 6, verify(t, "--allow-simulated", "/tmp/spoilt.json").status, "byte %d", at)
		}
	})
	t.Run("the report names it", func(t *testing.T) {
		assert.Contains(t, must(t, "login", "alice", "enclave", "report", id), "enclave receipt export "+id+".0")
		assert.Contains(t, must(t, "login", "alice", "enclave", "report", id, "--json"), `"receipt": "sha256:`)
	})
	t.Run("another user does not get it", func(t *testing.T) {
		assert.Equal(t, 7, on(t, "login", "bob", "enclave", "receipt", "export", id).status)
		assert.Equal(t, 5, on(t, "login", "bob", "enclave", "audit", "verify").status)
	})
	idle(t)
}

func TestP6ARefusedStartHasAReceiptThatHolds(t *testing.T) {
	idle(t)
	setFault(t, "n2", `{"old_tcb": true}`)
	id := submit(t, "alice", "srun hostname", "--partition=cpu-sev", "--nodes=3")
	eventually(t, 60*time.Second, func() bool { return drained(t, "n2") != "" }, func() string { return must(t, "n0", "root", "sinfo", "-R") })
	await(t, id, "PENDING")
	must(t, "n0", "root", "scancel", id)
	on(t, "n2", "root", "sh", "-c", "echo '{}' >/run/enclave-tsm.faults")
	path := exported(t, id+".0", "r-"+id+".json")
	r := verify(t, "--allow-simulated", path)
	require.Zero(t, r.status, "%s", r)
	assert.Contains(t, r.out, "verdict REFUSED")
	assert.Contains(t, r.out, "FAIL, as the receipt says")
	resume(t, "n2")
	idle(t)
}

const ledgerFile = "/var/lib/slurm-enclave/ledger.db"

// ledgerCopy is the ledger of the lab's controller as one file; enclaved must not run.
func ledgerCopy(t *testing.T, change string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ledger.db")
	for _, suffix := range []string{"", "-wal"} {
		b := on(t, "n0", "root", "cat", ledgerFile+suffix).out
		require.NoError(t, os.WriteFile(path+suffix, []byte(b), 0o600))
	}
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), change)
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), "PRAGMA wal_checkpoint(TRUNCATE)")
	require.NoError(t, err)
	require.NoError(t, db.Close())
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(b)
}

// exchange stops enclaved, puts another ledger in the place of its own, and starts it.
func exchange(t *testing.T, content func() string) {
	t.Helper()
	require.NoError(t, labCommand("stop", "n0", "enclaved").Run())
	r := onWithInput(t, "n0", "root", content(), "sh", "-c", "cat >"+ledgerFile+" && rm -f "+ledgerFile+"-wal "+ledgerFile+"-shm")
	require.Zero(t, r.status, "%s", r)
	require.NoError(t, labCommand("start", "n0", "enclaved").Run())
}

func TestP6ATamperedLedgerIsFound(t *testing.T) {
	idle(t)
	audit := func(args ...string) result {
		return on(t, "n0", "root", append([]string{"enclave", "audit", "verify"}, args...)...)
	}
	for range 2 {
		id := submit(t, "alice", "srun hostname", "--partition=cpu-sev")
		await(t, id, "COMPLETED")
		exported(t, id, "r-"+id+".json")
	}
	idle(t)
	whole := audit()
	require.Zero(t, whole.status, "%s", whole)
	_, head, ok := strings.Cut(strings.TrimSpace(whole.out), "\nhead ")
	require.True(t, ok, whole.out)

	var kept string
	spoil := func(name, change, want string, args ...string) {
		t.Run(name+" is found", func(t *testing.T) {
			exchange(t, func() string {
				kept = ledgerCopy(t, "SELECT 1")
				return ledgerCopy(t, "DROP TRIGGER receipts_never_change; DROP TRIGGER receipts_never_go; "+change)
			})
			t.Cleanup(func() { exchange(t, func() string { return kept }) })
			var r result
			eventually(t, 30*time.Second, func() bool { r = audit(args...); return r.status != 4 }, func() string { return r.String() })
			assert.Equal(t, 6, r.status, "%s", r)
			assert.Contains(t, r.out, want)
		})
	}
	const last = "(SELECT max(seq) FROM receipts)"
	spoil("a receipt that was taken away", "DELETE FROM receipts WHERE seq="+last+"-1", "is missing")
	spoil("a receipt that was changed", "UPDATE receipts SET envelope=CAST(replace(CAST(envelope AS TEXT), '\"sig\":\"', '\"sig\":\"A') AS BLOB) WHERE seq="+last+"-1", "was changed")
	spoil("a row that says otherwise than its receipt", "UPDATE receipts SET job=job+1000 WHERE seq="+last+"-1", "the ledger says otherwise")
	spoil("a cut end, by the head that was noted,", "DELETE FROM receipts WHERE seq="+last, "which you noted", "--head", head)
	var again result
	eventually(t, 30*time.Second, func() bool { again = audit("--head", head); return again.status != 4 }, func() string { return again.String() })
	assert.Zero(t, again.status, "the controls: everything is as before: %s", again)
}

func TestP6ARevokedNodeStandsInTheReceipt(t *testing.T) {
	idle(t)
	id := submit(t, "alice", "srun sleep 120", "--partition=cpu-sev", "--nodes=3")
	started(t, id, "alice", "n2")
	must(t, "n0", "root", "enclave", "node", "revoke", "n2", "--reason", "a disk is missing")
	t.Cleanup(func() { readmit(t, "n2"); idle(t) })
	r := verify(t, "--allow-simulated", exported(t, id, "r-"+id+".json"))
	require.Zero(t, r.status, "%s", r)
	for _, want := range []string{"verdict REFUSED", "out of the roster at", "a disk is missing", "roster of epoch 2", "2 leaves under its root"} {
		assert.Contains(t, r.out, want)
	}
}
