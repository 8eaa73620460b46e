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

// sacct prints records as the real one does: every field closed by the delimiter that it was told.
type sacct struct {
	columns string // what -e prints
	records [][]string
	edit    func(string) string
	asked   []string
}

func (s *sacct) Run(_ context.Context, _ string, args ...string) ([]byte, error) {
	if args[0] == "-e" {
		return []byte(s.columns), nil
	}
	s.asked = args
	delimiter := ""
	for _, a := range args {
		if d, ok := strings.CutPrefix(a, "--delimiter="); ok {
			delimiter = d
		}
	}
	var b strings.Builder
	for _, r := range s.records {
		b.WriteString(strings.Join(r, delimiter) + delimiter + "\n")
	}
	if s.edit != nil {
		return []byte(s.edit(b.String())), nil
	}
	return []byte(b.String()), nil
}

// done is a record as 22.05 printed it.
func done(name string) []string {
	return []string{
		"4711", "4711", "alice", "2001", "digimed", "cpu-sev", "COMPLETED", "0:0", "2026-11-22T09:05:16", "2026-11-22T09:05:17", "2026-11-22T09:06:17", "60",
		"120", "2", "n[1-2]", name,
	}
}

var window = slurm.Want{Since: time.Date(2026, 11, 1, 1, 0, 0, 0, time.FixedZone("", 3600))}

func TestRecords(t *testing.T) {
	t.Parallel()
	start, end := time.Date(2026, 11, 22, 9, 5, 17, 0, time.UTC), time.Date(2026, 11, 22, 9, 6, 17, 0, time.UTC)
	want := slurm.Record{
		Job: 4711, Name: "4711", User: "alice", UID: 2001, Account: "digimed", Partition: "cpu-sev", State: "COMPLETED", ExitCode: "0:0", Submit: start.Add(-time.Second),
		Start: &start, End: &end, Elapsed: time.Minute, CPUTime: 2 * time.Minute, NodeCount: 2, Nodes: "n[1-2]", JobName: "job",
	}
	t.Run("a job that is over", func(t *testing.T) {
		t.Parallel()
		s := &sacct{records: [][]string{done("job")}}
		got, err := slurm.NewCLI(s).Records(t.Context(), window)
		require.NoError(t, err)
		assert.Equal(t, []slurm.Record{want}, got)
		line := strings.Join(s.asked, " ")
		assert.Contains(t, line, "-D -X -n -p --delimiter=|")
		assert.Contains(t, line, "-S 2026-11-01T00:00:00 -E now ")
		assert.True(t, strings.HasSuffix(line, " -a"), line)
	})
	t.Run("a job that waits has no times and no nodes", func(t *testing.T) {
		t.Parallel()
		w := done("job")
		w[6], w[9], w[10], w[11], w[12], w[13], w[14] = "PENDING", "Unknown", "Unknown", "0", "0", "0", "None assigned"
		got, err := slurm.NewCLI(&sacct{records: [][]string{w}}).Records(t.Context(), window)
		require.NoError(t, err)
		assert.Nil(t, got[0].Start)
		assert.Nil(t, got[0].End)
		assert.Empty(t, got[0].Nodes)
	})
	t.Run("the restart count is read where sacct has it", func(t *testing.T) {
		t.Parallel()
		r := append(done("job")[:15:15], "2", "job")
		s := &sacct{columns: "AllocCPUS  Restarts\nState SLUID", records: [][]string{r}}
		got, err := slurm.NewCLI(s).Records(t.Context(), window)
		require.NoError(t, err)
		require.NotNil(t, got[0].Restart)
		assert.EqualValues(t, 2, *got[0].Restart)
	})
	t.Run("a name with separators and forged lines is one name", func(t *testing.T) {
		t.Parallel()
		evil := "x|\n4712|4712|root|0|digimed|cpu-sev|COMPLETED|0:0|2026-11-22T09:05:16|\n|" + strings.Repeat("|", 40) + "\xff\n"
		got, err := slurm.NewCLI(&sacct{records: [][]string{done(evil), done(""), done("job")}}).Records(t.Context(), window)
		require.NoError(t, err)
		require.Len(t, got, 3)
		assert.Equal(t, evil, got[0].JobName)
		assert.Equal(t, want, got[2])
	})
	t.Run("the separator is another one each time", func(t *testing.T) {
		t.Parallel()
		one, two := &sacct{}, &sacct{}
		for _, s := range []*sacct{one, two} {
			got, err := slurm.NewCLI(s).Records(t.Context(), window)
			require.NoError(t, err)
			assert.Empty(t, got)
		}
		assert.NotEqual(t, one.asked, two.asked)
	})
	t.Run("the question is narrowed", func(t *testing.T) {
		t.Parallel()
		s, uid := &sacct{}, uint32(2001)
		_, err := slurm.NewCLI(s).Records(t.Context(), slurm.Want{UID: &uid, Accounts: []string{"a", "b"}, Partitions: []string{"cpu-sev"}})
		require.NoError(t, err)
		line := strings.Join(s.asked, " ")
		assert.True(t, strings.HasSuffix(line, " -u 2001 -A a,b -r cpu-sev"), line)
		assert.NotContains(t, s.asked, "-a")
	})
	for _, bad := range []string{"", "a,b", "a b", "a\n"} {
		t.Run(fmt.Sprintf("account %q is no name", bad), func(t *testing.T) {
			t.Parallel()
			s := &sacct{}
			_, err := slurm.NewCLI(s).Records(t.Context(), slurm.Want{Accounts: []string{bad}})
			require.Error(t, err)
			assert.Empty(t, s.asked)
		})
	}
	for name, edit := range map[string]func(string) string{
		"half a record":        func(s string) string { return s[:len(s)/2] },
		"a record without end": func(s string) string { return strings.TrimRight(s, "\n") + "x" },
		"a word for a number":  func(s string) string { return strings.Replace(s, "2001", "alice", 1) },
		"a time that is none":  func(s string) string { return strings.Replace(s, "2026-11-22T09:05:17", "yesterday", 1) },
		"a negative number":    func(s string) string { return strings.Replace(s, "120", "-1", 1) },
		"a usage message":      func(string) string { return "sacct: error: Invalid field requested\n" },
	} {
		t.Run(name+" is an error", func(t *testing.T) {
			t.Parallel()
			_, err := slurm.NewCLI(&sacct{records: [][]string{done("job")}, edit: edit}).Records(t.Context(), window)
			require.Error(t, err)
		})
	}
}

func FuzzRecords(f *testing.F) {
	f.Add("job", "2001", "2026-11-22T09:05:17")
	f.Add("x|\n4|", "", "Unknown")
	f.Fuzz(func(t *testing.T, name, uid, start string) {
		r := done(name)
		r[3], r[9] = uid, start
		got, err := slurm.NewCLI(&sacct{records: [][]string{done("first"), r}}).Records(t.Context(), window)
		if err == nil {
			require.Len(t, got, 2)
			require.Equal(t, name, got[1].JobName)
			require.Equal(t, "first", got[0].JobName)
		}
	})
}
