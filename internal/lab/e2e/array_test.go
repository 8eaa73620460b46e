//go:build e2e

package e2e_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// contractOfArrays acts on the element of an array that has the array's own number: Slurm takes that
// number alone for all of them. The others are the control: one is over, one runs.
func contractOfArrays(t *testing.T, kind string) {
	t.Helper()
	id := submit(t, "alice", `[ "$SLURM_ARRAY_TASK_ID" = 1 ] && exit 0; sleep 300`, "--partition=cpu", "--time=5", "--array=1-3", "--output=slurm-%A_%a.out")
	t.Cleanup(func() { on(t, "n0", "root", "scancel", id) })
	over, other, last := "", "", ""
	eventually(t, 60*time.Second, func() bool {
		over, other, last = element(t, id, 1), element(t, id, 2), element(t, id, 3)
		return strings.Contains(over, "|COMPLETED|") && strings.Contains(other, "|RUNNING|") && strings.Contains(last, "|RUNNING|")
	}, func() string { return over + other + last })
	sibling, _, _ := strings.Cut(other, "|")
	require.NotEqual(t, id, sibling)
	require.True(t, strings.HasPrefix(last, id+"|"), "Slurm gives the array's own number to the last element: %s", last)
	before := fine(t, kind, "comment", sibling, "").Text
	untouched := func(after string) {
		t.Helper()
		assert.Equal(t, over, element(t, id, 1), "the one that is over, after %s by %s", after, kind)
		assert.Equal(t, other, element(t, id, 2), "the one that runs, after %s by %s", after, kind)
		assert.Equal(t, before, fine(t, kind, "comment", sibling, "").Text, "after %s by %s", after, kind)
	}

	fine(t, kind, "set-comment", id, "of one alone")
	assert.Equal(t, "of one alone", fine(t, kind, "comment", id, "").Text)
	untouched("set-comment")
	fine(t, kind, "set-comment", sibling, "of the other")
	assert.Equal(t, "of one alone", fine(t, kind, "comment", id, "").Text)
	before = "of the other"

	fine(t, kind, "requeue", id, "")
	eventually(t, 60*time.Second, func() bool { return drive(t, kind, "job", id, "").Job.Restarts == 1 },
		func() string { return fmt.Sprintf("%+v", drive(t, kind, "job", id, "")) })
	untouched("requeue")

	fine(t, kind, "cancel", id, "")
	eventually(t, 60*time.Second, func() bool { return strings.Contains(element(t, id, 3), "|CANCELLED|") },
		func() string { return element(t, id, 3) })
	untouched("cancel")
	fine(t, kind, "cancel", id, "") // one that is over is no error
	assert.Equal(t, "ErrFinished", drive(t, kind, "set-comment", id, "x").Err)
	eventually(t, 30*time.Second, func() bool { a := drive(t, kind, "comment", id, ""); return a.Finished && a.Text == "of one alone" },
		func() string { return fmt.Sprintf("%+v", drive(t, kind, "comment", id, "")) })

	fine(t, kind, "cancel", sibling, "")
	await(t, sibling, "CANCELLED")
	first, _, _ := strings.Cut(over, "|")
	stored := fine(t, kind, "comment", first, "").Text
	eventually(t, 30*time.Second, func() bool { return drive(t, kind, "store-comment", id, "over").Err == "" }, // accounting hears of the elements later
		func() string { return fmt.Sprintf("%+v", drive(t, kind, "store-comment", id, "over")) })
	assert.Equal(t, "over", fine(t, kind, "comment", id, "").Text)
	assert.Equal(t, stored, fine(t, kind, "comment", first, "").Text, "store-comment by %s", kind)

	contractOfWaitingArrays(t, kind)
}

// contractOfWaitingArrays acts on an array's record that stands for all elements that wait.
func contractOfWaitingArrays(t *testing.T, kind string) {
	t.Helper()
	id := submit(t, "alice", "sleep 300", "--partition=cpu", "--array=1-3%2", "--begin=now+1hour")
	t.Cleanup(func() { on(t, "n0", "root", "scancel", id) })
	assert.Equal(t, "PENDING", fine(t, kind, "job", id, "").Job.State)
	fine(t, kind, "set-comment", id, "of all that wait")
	assert.Equal(t, "of all that wait", fine(t, kind, "comment", id, "").Text)
	fine(t, kind, "cancel", id, "")
	eventually(t, 60*time.Second, func() bool { return drive(t, kind, "job", id, "").Job.State == "CANCELLED" },
		func() string { return fmt.Sprintf("%+v", drive(t, kind, "job", id, "")) })
}

// element is what squeue tells of one task of an array, with its number first.
func element(t *testing.T, id string, task int) string {
	t.Helper()
	return on(t, "n0", "root", "squeue", "-h", "-a", "-t", "all", "-j", id+"_"+strconv.Itoa(task),
		"-O", "JobID:|,State:|,Restartcnt:|,StartTime:|").out
}
