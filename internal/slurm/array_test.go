package slurm_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/slurm"
)

// How a driver asks which element of an array job 4 is, and what squeue says of the elements of array 4
// while the last of them, which has its number, runs.
const (
	asked       = `squeue ["-h" "-a" "-t" "all" "-j" "4" "-O" "JobID:|,ArrayJobID:|,ArrayTaskID:|"]`
	askedStored = `sacct ["-X" "-n" "-P" "-j" "4" "-o" "JobIDRaw,JobID"]`
	single      = "4|4|N/A|\n"
	elements    = "4|4|3|\n6|4|2|\n5|4|1|\n"
)

// lone and last are job 4 as slurmrestd tells it: a job of its own, and the last element of array 4.
var (
	lone = strings.Replace(running24, `"job_id":4`, `"job_id":4,"array_job_id":{"set":true,"infinite":false,"number":0}`, 1)
	last = strings.Replace(running24, `"job_id":4`, `"job_id":4,"array_job_id":{"set":true,"infinite":false,"number":4}`, 1)
)

// storedLone is job 4 as slurmdbd tells it.
const storedLone = `{"jobs":[{"job_id":4,"array":{"job_id":0,"task_id":{"set":false,"infinite":false,"number":0}},"comment":{"administrator":""},"time":{"submission":1}}],"errors":[]}`

type writer interface {
	Requeue(ctx context.Context, id uint32) error
	Cancel(ctx context.Context, id uint32) error
	SetAdminComment(ctx context.Context, id uint32, text string) error
}

// acts are those that Slurm applies to a whole array when they name it.
func acts() map[string]func(context.Context, writer, uint32) error {
	return map[string]func(context.Context, writer, uint32) error{
		`scontrol ["requeue" %q]`:                   func(ctx context.Context, w writer, id uint32) error { return w.Requeue(ctx, id) },
		`scancel [%q]`:                              func(ctx context.Context, w writer, id uint32) error { return w.Cancel(ctx, id) },
		`scontrol ["update" %q "AdminComment=x y"]`: func(ctx context.Context, w writer, id uint32) error { return w.SetAdminComment(ctx, id, "x y") },
	}
}

// told is the command for a target.
func told(format, target string) string {
	if strings.Contains(format, "update") {
		target = "JobId=" + target
	}
	return fmt.Sprintf(format, target)
}

func TestArrays(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, squeue string
		id           uint32
		target       string
	}{
		{"the element with the array's number is acted on alone", elements, 4, "4_3"},
		{"an element with a number of its own, too", elements, 6, "4_2"},
		{"a job of no array goes by its number", single, 4, "4"},
		{"of an array's record those that still wait are meant", "4|4|2-3,7%2|\n5|4|1|\n", 4, "4_[2-3,7]"},
		{"a step in the list stays", "4|4|2-8:2|\n", 4, "4_[2-8:2]"},
	} {
		for format, act := range acts() {
			t.Run(c.name+": "+format, func(t *testing.T) {
				t.Parallel()
				cli, s := said(answer{out: c.squeue})
				require.NoError(t, act(t.Context(), cli, c.id))
				require.Len(t, s.asked, 2)
				assert.Equal(t, told(format, c.target), s.asked[1])
			})
		}
	}
	for name, out := range map[string]string{
		"a list that squeue has shortened": "4|4|1-3,5,7...|\n",
		"a list of words":                  "4|4|1]; 5_[2|\n",
		"no task":                          "4|4||\n",
		"an array that is no number":       "4|x|3|\n",
		"an array with a sign":             "4|+4|3|\n",
		"a column less":                    "4|4|\n",
		"an element that is told twice":    "4|4|3|\n4|4|3|\n",
		"a usage message":                  "squeue: error: Invalid job format specification\n",
	} {
		for format, act := range acts() {
			t.Run(name+" is acted on not at all: "+format, func(t *testing.T) {
				t.Parallel()
				cli, s := said(answer{out: out})
				err := act(t.Context(), cli, 4)
				require.Error(t, err)
				require.NotErrorIs(t, err, slurm.ErrNoJob)
				assert.Equal(t, []string{asked}, s.asked)
			})
		}
	}
	t.Run("a job that slurm forgot has a name of its own", func(t *testing.T) {
		t.Parallel()
		for _, act := range acts() {
			cli, _ := said(answer{stderr: "slurm_load_jobs error: Invalid job id specified"})
			require.ErrorIs(t, act(t.Context(), cli, 4), slurm.ErrNoJob)
			cli, _ = said(answer{out: "6|4|2|\n"})
			require.ErrorIs(t, act(t.Context(), cli, 4), slurm.ErrNoJob)
		}
	})
	t.Run("a job that can't be read can be ended", func(t *testing.T) {
		t.Parallel()
		cli, _ := said(answer{out: strings.Replace(running, "RUNNING", "a b", 1)}, answer{out: single})
		_, err := cli.Job(t.Context(), 4)
		require.Error(t, err)
		require.NoError(t, cli.Cancel(t.Context(), 4))
	})
}

func TestStoredArrays(t *testing.T) {
	t.Parallel()
	for out, target := range map[string]string{
		"5|4_1\n6|4_2\n4|4_3\n": "4_3", "4|4\n": "4", "4|3_7\n": "3_7", "4|4_[2-3%2]\n5|4_1\n": "4_[2-3]", "4|4+0\n": "4",
	} {
		t.Run(fmt.Sprintf("of %q the record %s is changed", out, target), func(t *testing.T) {
			t.Parallel()
			cli, s := said(answer{out: out})
			want := []string{askedStored}
			if target == "4" { // slurmctld is asked as well
				cli, s = said(answer{out: out}, answer{out: single})
				want = append(want, asked)
			}
			require.NoError(t, cli.SetStoredComment(t.Context(), 4, "x"))
			assert.Equal(t, append(want, fmt.Sprintf(`sacctmgr ["-i" "-Q" "modify" "job" "where" %q "set" "AdminComment=x"]`, "jobid="+target)), s.asked)
		})
	}
	t.Run("an element that accounting takes for a job of its own is stored later", func(t *testing.T) {
		t.Parallel()
		cli, s := said(answer{out: "4|4\n"}, answer{out: elements})
		require.ErrorContains(t, cli.SetStoredComment(t.Context(), 4, "x"), "does not know yet")
		assert.Len(t, s.asked, 2)
		cli, s = said(answer{out: "4|4\n"}, answer{stderr: "slurm_load_jobs error: Invalid job id specified"})
		require.NoError(t, cli.SetStoredComment(t.Context(), 4, "x"), "slurmctld has forgotten it: accounting has all")
		assert.Len(t, s.asked, 3)
		cli, s = said(answer{out: "4|4\n"}, answer{stderr: "slurm_load_jobs error: Unable to contact slurm controller"})
		require.Error(t, cli.SetStoredComment(t.Context(), 4, "x"))
		assert.Len(t, s.asked, 2)
	})
	for _, out := range []string{"4\n", "4|4|x\n", "4|4_\n", "4|x_1\n", "4|4_1;2\n", "4|4_3\n4|4_3\n", "4|4_[1,2,...]\n"} {
		t.Run(fmt.Sprintf("%q changes no record", out), func(t *testing.T) {
			t.Parallel()
			cli, s := said(answer{out: out})
			require.Error(t, cli.SetStoredComment(t.Context(), 4, "x"))
			assert.Len(t, s.asked, 1)
		})
	}
	t.Run("a job that accounting does not know", func(t *testing.T) {
		t.Parallel()
		cli, s := said(answer{out: "5|4_1\n"})
		require.ErrorIs(t, cli.SetStoredComment(t.Context(), 4, "x"), slurm.ErrNoJob)
		assert.Len(t, s.asked, 1)
	})
	const path = "/slurmdb/v0.0.45/job/4"
	record := func(array string) map[string]reply {
		return map[string]reply{"POST " + path: {body: fine}, "GET " + path: {body: `{"jobs":[{"job_id":4,` + array + `"comment":{"administrator":""},"time":{"submission":1}}],"errors":[]}`}}
	}
	t.Run("the element with the array's number goes by command", func(t *testing.T) {
		t.Parallel()
		r, s, sc := release(t, "26.05", record(`"array":{"job_id":4,"task_id":{"set":true,"number":3}},`), answer{out: "4|4_3\n"})
		require.NoError(t, r.SetStoredComment(t.Context(), 4, "x"))
		assert.Equal(t, []string{"GET " + path}, s.asked)
		assert.Contains(t, sc.asked[1], "jobid=4_3")
		r, _, _ = release(t, "26.05", record(`"array":{"job_id":4,"task_id":{"set":true,"number":3}},`), answer{out: "4|4_3\n"})
		require.ErrorIs(t, r.SetStoredComment(t.Context(), 4, "It's"), slurm.ErrLossy)
	})
	t.Run("another element and a job of no array go by number", func(t *testing.T) {
		t.Parallel()
		for array, calls := range map[string]int{`"array":{"job_id":3,"task_id":{"set":true,"number":3}},`: 2, `"array":{"job_id":0,"task_id":{"set":false,"number":0}},`: 3} {
			replies := record(array)
			replies["GET /slurm/v0.0.45/job/4"] = reply{body: lone}
			r, s, sc := release(t, "26.05", replies)
			require.NoError(t, r.SetStoredComment(t.Context(), 4, "It's"))
			assert.Len(t, s.asked, calls, array)
			assert.Empty(t, sc.asked)
		}
		replies := record(`"array":{"job_id":0,"task_id":{"set":false,"number":0}},`)
		replies["GET /slurm/v0.0.45/job/4"] = reply{body: last}
		r, s, _ := release(t, "26.05", replies, answer{out: elements})
		require.ErrorContains(t, r.SetStoredComment(t.Context(), 4, "It's"), "does not know yet")
		assert.Len(t, s.asked, 2)
	})
}

func TestRESTArrays(t *testing.T) {
	t.Parallel()
	const job = "/slurm/v0.0.45/job/4"
	served := func(record string) map[string]reply {
		return map[string]reply{
			"GET " + job: {body: record}, "POST " + job: {body: fine}, "DELETE " + job: {body: fine},
			"POST /slurm/v0.0.45/jobs/requeue": {body: `{"status":[{"job_id":4,"error_code":0}],"errors":[]}`},
		}
	}
	for format, act := range acts() {
		t.Run("the element with the array's number goes by command: "+format, func(t *testing.T) {
			t.Parallel()
			r, s, sc := release(t, "26.05", served(last), answer{out: elements})
			require.NoError(t, act(t.Context(), r, 4))
			assert.Equal(t, []string{"GET " + job}, s.asked, "slurmrestd is told nothing")
			assert.Equal(t, []string{asked, told(format, "4_3")}, sc.asked)
		})
		t.Run("another element goes by its number: "+format, func(t *testing.T) {
			t.Parallel()
			r, s, sc := release(t, "26.05", served(strings.Replace(last, `"number":4}`, `"number":3}`, 1)))
			require.NoError(t, act(t.Context(), r, 4))
			assert.Len(t, s.asked, 2)
			assert.Empty(t, sc.asked)
		})
		t.Run("what slurmrestd does not tell is asked by command: "+format, func(t *testing.T) {
			t.Parallel()
			r, s, sc := release(t, "26.05", served(running24), answer{out: elements}, answer{out: elements})
			require.NoError(t, act(t.Context(), r, 4))
			assert.Len(t, s.asked, 1)
			assert.Equal(t, []string{asked, asked, told(format, "4_3")}, sc.asked)
		})
		t.Run("a server that fails is no leave to act by number: "+format, func(t *testing.T) {
			t.Parallel()
			answers := served(lone)
			answers["GET "+job] = reply{http.StatusInternalServerError, `{"errors":[{"error_number":1800,"error":"x"}]}`}
			r, s, sc := release(t, "26.05", answers)
			require.Error(t, act(t.Context(), r, 4))
			assert.Len(t, s.asked, 1)
			assert.Empty(t, sc.asked)
		})
	}
}
