//go:build e2e

package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/host/file"
	"github.com/slurm-enclave/slurm-enclave/internal/host/program"
	"github.com/slurm-enclave/slurm-enclave/internal/slurm"
)

// driverIn in the environment makes the test program a driver of Slurm on n0, as the user enclave: it
// does one thing and prints what came of it.
const (
	driverIn      = "E2E_DRIVER"
	driverProgram = "/usr/local/sbin/e2e-driver"
)

// said is what a driver answered. Err is the name of an error that callers branch on, or its text.
type said struct {
	Job      slurm.Job
	Node     slurm.Node
	Text     string
	Finished bool
	Duties   []slurm.Duty
	Err      string
}

type slurmDriver interface {
	Job(ctx context.Context, id uint32) (slurm.Job, error)
	Node(ctx context.Context, name string) (slurm.Node, error)
	AdminComment(ctx context.Context, id uint32) (string, bool, error)
	SetAdminComment(ctx context.Context, id uint32, text string) error
	SetStoredComment(ctx context.Context, id uint32, text string) error
	Requeue(ctx context.Context, id uint32) error
	Cancel(ctx context.Context, id uint32) error
	Drain(ctx context.Context, node, reason string) error
	Resume(ctx context.Context, node string) error
}

func driverOf(kind string) (slurmDriver, error) {
	commands := slurm.NewCLI(program.Runner{})
	switch kind {
	case "cli":
		return commands, nil
	case "socket":
		return slurm.NewREST(slurm.Endpoint{Socket: "/run/slurmrestd/slurmrestd.sock"}, commands), nil
	case "token":
		return slurm.NewREST(slurm.Endpoint{URL: "http://127.0.0.1:6820", User: "enclave", Token: func() (enclave.Secret, error) {
			b, err := file.Private("/var/lib/slurm-enclave/slurm.token", 4096)
			return enclave.NewSecret(b), err
		}}, commands), nil
	}
	return nil, errors.New("no such driver")
}

// driverMain is that program: args are what to do, on what; a text comes on standard input.
func driverMain(kind string, args []string) int {
	ctx, cancel := context.WithTimeout(context.Background(), 25*time.Second)
	defer cancel()
	d, err := driverOf(kind)
	var a said
	if err == nil {
		a, err = doDriver(ctx, d, args[0], args[1])
	}
	for name, known := range map[string]error{
		"ErrNoJob": slurm.ErrNoJob, "ErrNoNode": slurm.ErrNoNode, "ErrFinished": slurm.ErrFinished, "ErrInteractive": slurm.ErrInteractive, "ErrLossy": slurm.ErrLossy,
	} {
		if errors.Is(err, known) {
			a.Err = name
		}
	}
	if err != nil && a.Err == "" {
		a.Err = err.Error()
	}
	if json.NewEncoder(os.Stdout).Encode(a) != nil {
		return 1
	}
	return 0
}

func doDriver(ctx context.Context, d slurmDriver, act, on string) (a said, err error) {
	id, _ := strconv.ParseUint(on, 10, 32)
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return a, err
	}
	switch act {
	case "job":
		a.Job, err = d.Job(ctx, uint32(id))
	case "node":
		a.Node, err = d.Node(ctx, on)
	case "comment":
		a.Text, a.Finished, err = d.AdminComment(ctx, uint32(id))
	case "set-comment":
		err = d.SetAdminComment(ctx, uint32(id), string(text))
	case "store-comment":
		err = d.SetStoredComment(ctx, uint32(id), string(text))
	case "requeue":
		err = d.Requeue(ctx, uint32(id))
	case "cancel":
		err = d.Cancel(ctx, uint32(id))
	case "drain":
		err = d.Drain(ctx, on, string(text))
	case "resume":
		err = d.Resume(ctx, on)
	case "duties":
		if r, ok := d.(*slurm.REST); ok {
			a.Duties, err = r.ByCommand(ctx)
		}
	case "version":
		if r, ok := d.(*slurm.REST); ok {
			a.Text, err = r.Version(ctx)
		}
	default:
		err = fmt.Errorf("no such act %q", act)
	}
	return a, err
}

// drive lets a driver do one thing on n0.
func drive(t *testing.T, kind, act, on, text string) said {
	t.Helper()
	r := onWithInput(t, "n0", "enclave", text, "env", driverIn+"="+kind, driverProgram, act, on)
	require.Zero(t, r.status, "%s %s %s: %s", kind, act, on, r)
	var a said
	require.NoError(t, json.Unmarshal([]byte(r.out), &a), r.out)
	return a
}

// fine is drive for what must succeed.
func fine(t *testing.T, kind, act, on, text string) said {
	t.Helper()
	a := drive(t, kind, act, on, text)
	require.Empty(t, a.Err, "%s %s %s", kind, act, on)
	return a
}

func driverKinds() []string { return []string{"cli", "socket", "token"} }

// One contract for every driver, on real daemons with slurmdbd and MariaDB.
func TestDriversKeepOneContract(t *testing.T) {
	copySelf(t, "n0", driverProgram)
	must(t, "n0", "root", "chmod", "755", driverProgram)
	for _, kind := range driverKinds() {
		t.Run(kind, func(t *testing.T) {
			t.Logf("by command: %v", fine(t, kind, "duties", "", "").Duties)
			contractOfJobs(t, kind)
			contractOfArrays(t, kind)
			contractOfNodes(t, kind)
			contractOfInteractiveJobs(t, kind)
		})
	}
	t.Run("daemons that are away", contractOfAbsence)
}

// foreign is what another tool has in AdminComment.
const foreign = `JS1:H4sIAaB/+= "quoted" it's | x`

func contractOfJobs(t *testing.T, kind string) {
	t.Helper()
	id := submit(t, "alice", "sleep 300", "--partition=cpu", "--time=5", "--job-name=n|a\n4|COMPLETED|State=FAILED", "--comment=JobId=1")
	t.Cleanup(func() { on(t, "n0", "root", "scancel", id) })
	await(t, id, "RUNNING")
	n, err := strconv.ParseUint(id, 10, 32)
	require.NoError(t, err)
	j := fine(t, kind, "job", id, "").Job
	assert.Regexp(t, "^c[12]$", j.Nodes)
	j.Nodes = ""
	assert.Equal(t, slurm.Job{
		ID: uint32(n), State: "RUNNING", Requeue: true, Batch: true, UID: 2001, TimeLimit: 5 * time.Minute, Partition: "cpu", Account: "digimed", AllocNode: "login",
	}, j)

	before := fine(t, kind, "comment", id, "")
	assert.False(t, before.Finished)
	text := strings.TrimSpace(foreign + " " + before.Text)
	fine(t, kind, "set-comment", id, text)
	for _, reader := range driverKinds() {
		assert.Equal(t, text, fine(t, reader, "comment", id, "").Text, "written by %s, read by %s", kind, reader)
	}

	fine(t, kind, "requeue", id, "")
	eventually(t, 60*time.Second, func() bool {
		a := drive(t, kind, "job", id, "")
		return a.Job.Restarts == 1 && a.Job.State != "COMPLETING"
	},
		func() string { return fmt.Sprintf("%+v", drive(t, kind, "job", id, "")) })
	await(t, id, "RUNNING")
	again := fine(t, kind, "comment", id, "")
	assert.False(t, again.Finished)
	assert.Equal(t, text, again.Text, "Slurm carries it over to the next start")

	fine(t, kind, "cancel", id, "")
	await(t, id, "CANCELLED")
	fine(t, kind, "cancel", id, "") // a job that is over is no error
	over := fine(t, kind, "job", id, "").Job
	assert.Equal(t, "CANCELLED", over.State)
	assert.False(t, over.Alive())
	contractOfTheEnd(t, kind, id, text)

	failed := submit(t, "alice", "exit 3", "--partition=cpu")
	await(t, failed, "FAILED")
	assert.True(t, fine(t, kind, "job", failed, "").Job.Refused(), "an exit code tells it from a cancelled one")
	assert.Equal(t, uint32(3<<8), fine(t, kind, "job", failed, "").Job.ExitCode)
	for _, act := range []string{"job", "comment", "requeue", "set-comment", "store-comment"} {
		assert.Equal(t, "ErrNoJob", drive(t, kind, act, "999999", "x").Err, act)
	}
}

// contractOfTheEnd is what can still be written when the job is over.
func contractOfTheEnd(t *testing.T, kind, id, text string) {
	t.Helper()
	eventually(t, 30*time.Second, func() bool { a := drive(t, kind, "comment", id, ""); return a.Finished && a.Text == text },
		func() string { return fmt.Sprintf("%+v", drive(t, kind, "comment", id, "")) })
	assert.Equal(t, "ErrFinished", drive(t, kind, "set-comment", id, "x").Err)
	plain := "jobstats {`v`:1} x=y"
	fine(t, kind, "store-comment", id, plain)
	for _, reader := range driverKinds() {
		a := fine(t, reader, "comment", id, "")
		assert.Equal(t, plain, a.Text, "written by %s, read by %s", kind, reader)
		assert.True(t, a.Finished)
	}
	a := drive(t, kind, "store-comment", id, foreign)
	if a.Err == "" { // then nothing of it may be lost
		assert.Equal(t, foreign, fine(t, kind, "comment", id, "").Text)
		return
	}
	assert.Equal(t, "ErrLossy", a.Err)
	assert.Equal(t, plain, fine(t, kind, "comment", id, "").Text, "a refusal changes nothing")
}

func contractOfNodes(t *testing.T, kind string) {
	t.Helper()
	const reason = `enclave:E207 firmware "old", it's x=y State=RESUME|pipe`
	n := fine(t, kind, "node", "c2", "").Node
	assert.False(t, n.Drained(), "%+v", n)
	assert.Empty(t, n.Reason)
	fine(t, kind, "drain", "c2", reason+"\nState=DOWN")
	t.Cleanup(func() { resume(t, "c2") })
	for _, reader := range driverKinds() {
		n = fine(t, reader, "node", "c2", "").Node
		assert.Equal(t, "c2", n.Name)
		assert.True(t, n.Drained(), "%+v", n)
		assert.Equal(t, reason+"?State=DOWN", n.Reason, "written by %s, read by %s", kind, reader)
	}
	fine(t, kind, "resume", "c2", "")
	n = fine(t, kind, "node", "c2", "").Node
	assert.False(t, n.Drained(), "%+v", n)
	assert.Empty(t, n.Reason)
	assert.Equal(t, "ErrNoNode", drive(t, kind, "node", "c99", "").Err)
	assert.Equal(t, "ErrNoNode", drive(t, kind, "drain", "c99", "enclave:E220 x").Err)
	assert.NotEmpty(t, drive(t, kind, "drain", "c[1-2]", "enclave:E220 x").Err)
	assert.Empty(t, drained(t, "c1"))
}

// contractOfInteractiveJobs: nobody can put them back, and a driver must say so by name.
func contractOfInteractiveJobs(t *testing.T, kind string) {
	t.Helper()
	must(t, "login", "alice", "sh", "-c", "srun --partition=cpu --job-name=by-hand sleep 60 >/dev/null 2>&1 </dev/null &")
	id := ""
	eventually(t, 60*time.Second, func() bool {
		id = strings.TrimSpace(must(t, "n0", "root", "squeue", "-h", "-n", "by-hand", "-t", "RUNNING", "-o", "%i"))
		return id != ""
	}, func() string { return must(t, "n0", "root", "squeue") })
	assert.False(t, fine(t, kind, "job", id, "").Job.Batch)
	assert.Equal(t, "ErrInteractive", drive(t, kind, "requeue", id, "").Err)
	fine(t, kind, "cancel", id, "")
	await(t, id, "CANCELLED")
}

// contractOfAbsence: a daemon that is away is an error without a name, never a job that is gone.
func contractOfAbsence(t *testing.T) {
	id := submit(t, "alice", "sleep 300", "--partition=cpu")
	t.Cleanup(func() { on(t, "n0", "root", "scancel", id) })
	await(t, id, "RUNNING")
	require.NoError(t, labCommand("stop", "n0", "slurmrestd").Run())
	for _, act := range []string{"job", "comment", "cancel"} {
		assert.Contains(t, drive(t, "socket", act, id, "").Err, "ask slurmrestd", "%s is not done by command instead", act)
	}
	assert.Equal(t, "RUNNING", field(t, id, "JobState"))
	require.NoError(t, labCommand("start", "n0", "slurmrestd").Run())
	eventually(t, 30*time.Second, func() bool { return drive(t, "socket", "job", id, "").Err == "" }, func() string { return drive(t, "socket", "job", id, "").Err })

	// What slurmctld has not written to the disk when it is killed is lost, the job's number included.
	must(t, "n0", "root", "touch", "/run/marker")
	fine(t, "cli", "set-comment", id, "to be saved")
	eventually(t, 60*time.Second, func() bool {
		return must(t, "n0", "root", "find", "/var/spool/slurmctld/job_state", "-newer", "/run/marker") != ""
	},
		func() string { return must(t, "n0", "root", "ls", "-la", "/var/spool/slurmctld") })
	require.NoError(t, labCommand("stop", "n0", "slurmctld").Run())
	t.Run("slurmctld", func(t *testing.T) {
		for _, kind := range driverKinds() {
			t.Run(kind, func(t *testing.T) {
				t.Parallel() // each waits for as long as it waits
				a := drive(t, kind, "job", id, "")
				assert.NotEmpty(t, a.Err)
				assert.NotEqual(t, "ErrNoJob", a.Err)
				assert.Zero(t, a.Job)
			})
		}
	})
	require.NoError(t, labCommand("start", "n0", "slurmctld").Run())
	for _, kind := range driverKinds() {
		eventually(t, 60*time.Second, func() bool { return drive(t, kind, "job", id, "").Err == "" }, func() string { return drive(t, kind, "job", id, "").Err })
	}
}

// The site role works through slurmrestd as it does by commands: a bad node is drained with its reason, the
// job is put back and runs, the verdict is in accounting before the job ends and after.
func TestTheSiteWorksThroughSlurmrestd(t *testing.T) {
	idle(t)
	reconfigure(t, `s|^  driver: cli$|  driver: rest\n  rest: {socket: /run/slurmrestd/slurmrestd.sock}|`)
	log := func() string { return on(t, "n0", "root", "cat", "/var/log/enclave-lab/enclaved.log").out }
	eventually(t, 30*time.Second, func() bool { return strings.Contains(log(), "slurm is reached by slurmrestd") }, log)
	setFault(t, "n2", `{"old_tcb": true}`)
	id := submit(t, "alice", "srun true; until [ -e ~/seen-$SLURM_JOB_ID ]; do sleep 1; done", "--partition=cpu-sev", "--nodes=3")
	eventually(t, 60*time.Second, func() bool { return drained(t, "n2") != "" }, func() string { return must(t, "n0", "root", "sinfo", "-R") + log() })
	assert.Regexp(t, `^enclave:E2\d\d `, drained(t, "n2"))
	await(t, id, "PENDING") // n2's prolog has told Slurm of its failure, too
	on(t, "n2", "root", "sh", "-c", "echo '{}' >/run/enclave-tsm.faults")
	resume(t, "n2")
	started(t, id, "alice", "n1")
	assert.Contains(t, field(t, id, "AdminComment"), `"v":"simulated"`, "while it runs")
	must(t, "login", "alice", "touch", "seen-"+id)
	await(t, id, "COMPLETED")
	idle(t)
	eventually(t, 30*time.Second, func() bool { return strings.Contains(adminComment(t, id), `"v":"simulated"`) }, func() string { return adminComment(t, id) + log() })
}
