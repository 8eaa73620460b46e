package slurm_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/slurm"
)

// script answers programs in turn and keeps what was asked, one line per call.
type script struct {
	answers []answer
	asked   []string
}

type answer struct {
	out    string
	stderr string // not empty: exit status 1
}

type failure struct{ printed string }

func (f failure) Error() string  { return "run: exit status 1: " + f.printed }
func (f failure) Stderr() string { return f.printed }

func (s *script) Run(_ context.Context, program string, args ...string) ([]byte, error) {
	s.asked = append(s.asked, fmt.Sprintf("%s %q", program, args))
	if len(s.asked) > len(s.answers) {
		return nil, nil
	}
	a := s.answers[len(s.asked)-1]
	if a.stderr != "" {
		return nil, failure{a.stderr}
	}
	return []byte(a.out), nil
}

func said(answers ...answer) (*slurm.CLI, *script) {
	s := &script{answers: answers}
	return slurm.NewCLI(s), s
}

// Lines as squeue 22.05.8 printed them.
const running = "4|RUNNING|1|1|1|2001|10:00|cpu-sev|digimed|k[1-2]|0|n0|\n"

func TestJob(t *testing.T) {
	t.Parallel()
	t.Run("a running job", func(t *testing.T) {
		t.Parallel()
		c, s := said(answer{out: running})
		j, err := c.Job(t.Context(), 4)
		require.NoError(t, err)
		assert.Equal(t, slurm.Job{
			ID: 4, State: "RUNNING", Restarts: 1, Requeue: true, Batch: true, UID: 2001, TimeLimit: 10 * time.Minute,
			Partition: "cpu-sev", Account: "digimed", Nodes: "k[1-2]", AllocNode: "n0",
		}, j)
		assert.True(t, j.Alive())
		assert.Equal(t, []string{`squeue ["-h" "-a" "-t" "all" "-j" "4" "-O" "JobID:|,State:|,Restartcnt:|,Requeue:|,BatchFlag:|,` +
			`UserID:|,TimeLimit:|,Partition:|,Account:|,NodeList:|,exit_code:|,AllocNodes:|"]`}, s.asked)
	})
	t.Run("a batch job whose prolog failed is a batch job still", func(t *testing.T) {
		t.Parallel()
		for printed, want := range map[string]bool{"|1|0|2001|": false, "|1|1|2001|": true, "|1|2|2001|": true, "|1|3|2001|": true} {
			out := strings.Replace(running, "|1|1|2001|", printed, 1)
			require.Contains(t, out, printed)
			c, _ := said(answer{out: out})
			j, err := c.Job(t.Context(), 4)
			require.NoError(t, err, printed)
			assert.Equal(t, want, j.Batch, printed)
		}
	})
	t.Run("a wait status is read as each release prints it", func(t *testing.T) {
		t.Parallel()
		for printed, want := range map[string]uint32{"0": 0, "15": 15, "256": 256, "0:0": 0, "0:15": 15, "1:0": 256, "130:0": 130 << 8} {
			c, _ := said(answer{out: strings.Replace(running, "|0|n0|", "|"+printed+"|n0|", 1)})
			j, err := c.Job(t.Context(), 4)
			require.NoError(t, err, printed)
			assert.Equal(t, want, j.ExitCode, printed)
		}
		for _, bad := range []string{"", ":", "1:", ":1", "256:0", "0:256", "0:0:0", "-1", "4294967296"} {
			c, _ := said(answer{out: strings.Replace(running, "|0|n0|", "|"+bad+"|n0|", 1)})
			_, err := c.Job(t.Context(), 4)
			require.ErrorContains(t, err, "column exit_code", bad)
		}
	})
	t.Run("a node list of a thousand names with domains comes whole", func(t *testing.T) {
		t.Parallel()
		names := make([]string, 1000)
		for i := range names {
			names[i] = fmt.Sprintf("cpu-sev-%04d.muc1.example.org", i*7%9973)
		}
		list := strings.Join(names, ",")
		c, _ := said(answer{out: strings.Replace(running, "k[1-2]", list, 1)})
		j, err := c.Job(t.Context(), 4)
		require.NoError(t, err)
		assert.Equal(t, list, j.Nodes)
	})
	t.Run("no column can be written by a user", func(t *testing.T) {
		t.Parallel()
		c, s := said(answer{out: running})
		_, err := c.Job(t.Context(), 4)
		require.NoError(t, err)
		for _, free := range []string{"Name", "Comment", "Command", "WorkDir", "Features", "WCKey", "STD", "Dependency"} {
			assert.NotContains(t, s.asked[0], free+":")
		}
	})
	t.Run("an element of an array is picked by its own number", func(t *testing.T) {
		t.Parallel()
		c, _ := said(answer{out: "6|PENDING|0|1|1|0|10:00|cpu|(null)|(null)|0|n0|\n5|RUNNING|0|1|1|0|10:00|cpu|(null)|k1|0|n0|\n"})
		j, err := c.Job(t.Context(), 6)
		require.NoError(t, err)
		assert.Equal(t, "PENDING", j.State)
		assert.Empty(t, j.Account)
		assert.Empty(t, j.Nodes)
	})
	t.Run("a state that is over is not alive", func(t *testing.T) {
		t.Parallel()
		for _, state := range []string{"PENDING", "COMPLETED", "COMPLETING", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "REQUEUED", "A_STATE_OF_TOMORROW"} {
			assert.False(t, slurm.Job{State: state}.Alive(), state)
		}
	})
	t.Run("only an exit code tells a refused start from a cancelled one", func(t *testing.T) {
		t.Parallel()
		assert.True(t, slurm.Job{State: "COMPLETING", ExitCode: 1 << 8}.Refused())
		assert.True(t, slurm.Job{State: "FAILED", ExitCode: 1 << 8}.Refused())
		assert.True(t, slurm.Job{State: "FAILED", ExitCode: 53}.Refused(), "slurmd could not launch it")
		assert.True(t, slurm.Job{State: "FAILED", ExitCode: 4021}.Refused(), "as 22.05 says it")
		assert.False(t, slurm.Job{State: "CANCELLED", ExitCode: 53}.Refused())
		assert.False(t, slurm.Job{State: "COMPLETING", ExitCode: 15}.Refused(), "scancel")
		assert.False(t, slurm.Job{State: "COMPLETING"}.Refused(), "scancel during the prologs")
		assert.False(t, slurm.Job{State: "CANCELLED", ExitCode: 1 << 8}.Refused())
		assert.False(t, slurm.Job{State: "TIMEOUT", ExitCode: 1 << 8}.Refused())
	})
	t.Run("a job that slurm forgot has a name of its own", func(t *testing.T) {
		t.Parallel()
		c, _ := said(answer{stderr: "slurm_load_jobs error: Invalid job id specified"}, answer{out: ""})
		_, err := c.Job(t.Context(), 4)
		require.ErrorIs(t, err, slurm.ErrNoJob)
		_, err = c.Job(t.Context(), 4)
		require.ErrorIs(t, err, slurm.ErrNoJob)
	})
	t.Run("a controller that is away does not say that the job is gone", func(t *testing.T) {
		t.Parallel()
		c, _ := said(answer{stderr: "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"})
		_, err := c.Job(t.Context(), 4)
		require.Error(t, err)
		require.NotErrorIs(t, err, slurm.ErrNoJob)
	})
	for s, want := range map[string]time.Duration{
		"UNLIMITED": 0, "Partition_Limit": 0, "30": 30 * time.Second, "1:30": 90 * time.Second, "1:00:00": time.Hour,
		"2-03:04:05": 51*time.Hour + 4*time.Minute + 5*time.Second, "365-00:00:00": 365 * 24 * time.Hour,
		"65536-00:00:00": 366 * 24 * time.Hour, "2982616-04:14:00": 366 * 24 * time.Hour, // a year is as good as more
	} {
		t.Run("time limit "+s, func(t *testing.T) {
			t.Parallel()
			c, _ := said(answer{out: strings.Replace(running, "10:00", s, 1)})
			j, err := c.Job(t.Context(), 4)
			require.NoError(t, err)
			assert.Equal(t, want, j.TimeLimit)
		})
	}
}

func TestJobForgeries(t *testing.T) {
	t.Parallel()
	for name, out := range map[string]string{
		"a submit host with a separator":    strings.Replace(running, "n0", "n0|x", 1),
		"a submit host with a newline":      strings.Replace(running, "n0", "n0\n4", 1),
		"a submit host that forges a line":  strings.Replace(running, "n0", "n0|\n"+strings.TrimSuffix(strings.Replace(running, "RUNNING", "COMPLETED", 1), "|\n"), 1),
		"a line with a column less":         "4|RUNNING|1|\n",
		"a state with a space":              strings.Replace(running, "RUNNING", "RUNNING x", 1),
		"no state":                          strings.Replace(running, "RUNNING", "", 1),
		"a negative restart count":          strings.Replace(running, "|1|1|1|", "|-1|1|1|", 1),
		"a flag that is a word":             strings.Replace(running, "|1|1|1|", "|1|yes|1|", 1),
		"a time limit that is none":         strings.Replace(running, "10:00", "10:00:00:00:00", 1),
		"a time limit beyond 64 bits":       strings.Replace(running, "10:00", "18446744073709551616-00:00:00", 1),
		"a time limit with a negative part": strings.Replace(running, "10:00", "-1:00", 1),
		"a usage message":                   "squeue: error: Invalid job format specification\n",
	} {
		t.Run(name+" is an error", func(t *testing.T) {
			t.Parallel()
			c, _ := said(answer{out: out})
			_, err := c.Job(t.Context(), 4)
			require.Error(t, err)
			assert.NotErrorIs(t, err, slurm.ErrNoJob)
		})
	}
	t.Run("a submit host that is no host name is unknown, not passed on", func(t *testing.T) {
		t.Parallel()
		c, _ := said(answer{out: strings.Replace(running, "n0", "-x;reboot", 1)})
		j, err := c.Job(t.Context(), 4)
		require.NoError(t, err)
		assert.Empty(t, j.AllocNode)
	})
}

func TestNode(t *testing.T) {
	t.Parallel()
	t.Run("a drained node", func(t *testing.T) {
		t.Parallel()
		line := `k1|idle+drain|enclave:E207 firmware "old", it's x=y State=RESUME|pipe|` + "\n"
		c, s := said(answer{out: line + line})
		n, err := c.Node(t.Context(), "k1")
		require.NoError(t, err)
		assert.Equal(t, slurm.Node{Name: "k1", State: []string{"idle", "drain"}, Reason: `enclave:E207 firmware "old", it's x=y State=RESUME|pipe`}, n)
		assert.True(t, n.Drained())
		assert.Equal(t, []string{`sinfo ["-h" "-a" "-N" "-n" "k1" "-O" "NodeList:|,StateComplete:|,Reason:|"]`}, s.asked)
	})
	t.Run("an idle node has no reason", func(t *testing.T) {
		t.Parallel()
		c, _ := said(answer{out: "k1|idle|none|\n"})
		n, err := c.Node(t.Context(), "k1")
		require.NoError(t, err)
		assert.Empty(t, n.Reason)
		assert.False(t, n.Drained())
	})
	t.Run("an unknown node", func(t *testing.T) {
		t.Parallel()
		c, _ := said(answer{})
		_, err := c.Node(t.Context(), "k9")
		require.ErrorIs(t, err, slurm.ErrNoNode)
	})
	t.Run("a line of another node is an error", func(t *testing.T) {
		t.Parallel()
		c, _ := said(answer{out: "k2|idle|none|\n"})
		_, err := c.Node(t.Context(), "k1")
		require.Error(t, err)
	})
}

func TestAdminComment(t *testing.T) {
	t.Parallel()
	text := `JS1:Abc| enclave={"v":"simulated"}` + "\n x|y "
	t.Run("of a living job it is slurmctld's", func(t *testing.T) {
		t.Parallel()
		c, _ := said(answer{out: running}, answer{out: "4|" + text + "|\n"})
		got, finished, err := c.AdminComment(t.Context(), 4)
		require.NoError(t, err)
		assert.False(t, finished)
		assert.Equal(t, text, got)
	})
	t.Run("none is the empty text", func(t *testing.T) {
		t.Parallel()
		c, _ := said(answer{out: running}, answer{out: "4|(null)|\n"})
		got, _, err := c.AdminComment(t.Context(), 4)
		require.NoError(t, err)
		assert.Empty(t, got)
	})
	t.Run("of a finished job it is the database's", func(t *testing.T) {
		t.Parallel()
		c, s := said(answer{out: strings.Replace(running, "RUNNING", "COMPLETED", 1)}, answer{out: "3|other\n4|" + text + "\n5|next\n"})
		got, finished, err := c.AdminComment(t.Context(), 4)
		require.NoError(t, err)
		assert.True(t, finished)
		assert.Equal(t, text, got)
		assert.Equal(t, `sacct ["-X" "-n" "-P" "-j" "4" "-o" "JobIDRaw,AdminComment"]`, s.asked[1])
	})
	t.Run("of a forgotten job it is the database's", func(t *testing.T) {
		t.Parallel()
		c, _ := said(answer{stderr: "slurm_load_jobs error: Invalid job id specified"}, answer{out: "4|\n"})
		got, finished, err := c.AdminComment(t.Context(), 4)
		require.NoError(t, err)
		assert.True(t, finished)
		assert.Empty(t, got)
	})
	t.Run("of a job that nobody knows there is none", func(t *testing.T) {
		t.Parallel()
		c, _ := said(answer{stderr: "Invalid job id specified"}, answer{})
		_, _, err := c.AdminComment(t.Context(), 4)
		require.ErrorIs(t, err, slurm.ErrNoJob)
	})
	t.Run("a controller that is away is an error, not a finished job", func(t *testing.T) {
		t.Parallel()
		c, s := said(answer{stderr: "Unable to contact slurm controller"})
		_, _, err := c.AdminComment(t.Context(), 4)
		require.Error(t, err)
		assert.Len(t, s.asked, 1)
	})
}

func TestSettings(t *testing.T) {
	t.Parallel()
	c, s := said(answer{out: "Configuration data as of 2026-11-22T10:00:00\nMessageTimeout          = 30 sec\nPrologFlags             = Alloc,Contain\nSchedulerParameters     = a=1,b\nEpilog                  = (null)\n\nSlurmctld(primary) at n0 is UP\n"})
	got, err := c.Settings(t.Context())
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"messagetimeout": "30 sec", "prologflags": "Alloc,Contain", "schedulerparameters": "a=1,b"}, got)
	assert.Equal(t, []string{`scontrol ["show" "config"]`}, s.asked)
	c, _ = said(answer{out: "Prolog[0] = /a\nProlog[1] = /b\nPrologSlurmctld[0] = /c\nOdd[x] = 1\n"}) // as 24.11 prints it
	got, err = c.Settings(t.Context())
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"prolog": "/a,/b", "prologslurmctld": "/c", "odd[x]": "1"}, got)
	c, _ = said(answer{stderr: "slurm_load_ctl_conf error: Unable to contact slurm controller"})
	_, err = c.Settings(t.Context())
	require.ErrorContains(t, err, "Unable to contact")
}

func TestAdminLevel(t *testing.T) {
	t.Parallel()
	c, s := said(answer{out: "Administrator\n"}, answer{})
	level, err := c.AdminLevel(t.Context(), "enclave")
	require.NoError(t, err)
	assert.Equal(t, "Administrator", level)
	level, err = c.AdminLevel(t.Context(), "nobody")
	require.NoError(t, err)
	assert.Empty(t, level, "a user that the database does not know")
	assert.Equal(t, `sacctmgr ["-n" "-P" "show" "user" "name=enclave" "format=AdminLevel"]`, s.asked[0])
}

func FuzzOutput(f *testing.F) {
	f.Add(running)
	f.Add("k1|idle|none|\n")
	f.Add("4|a\nb|\n5|c\n")
	f.Add(elements)
	f.Add("4|4|2-3,7%2|\n")
	f.Fuzz(func(t *testing.T, out string) {
		c, _ := said(answer{out: out}, answer{out: running}, answer{out: out})
		j, err := c.Job(t.Context(), 4)
		if err == nil {
			require.Equal(t, uint32(4), j.ID)
			require.NotEmpty(t, j.State)
			require.NotContains(t, j.AllocNode, "\n")
		}
		_, _, _ = c.AdminComment(t.Context(), 4)
		one, asked := said(answer{out: out})
		if one.Cancel(t.Context(), 4) == nil {
			require.Regexp(t, `^scancel \["(4|[0-9]+_[0-9]+|[0-9]+_\[[0-9,:-]+\])"\]$`, asked.asked[1])
		}
		n, _ := said(answer{out: out})
		if node, err := n.Node(t.Context(), "k1"); err == nil {
			require.Equal(t, "k1", node.Name)
			require.NotContains(t, node.Reason, "\n")
		}
	})
}
