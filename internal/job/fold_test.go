package job_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/job"
)

func TestFold(t *testing.T) {
	t.Parallel()
	for want, names := range map[string]string{
		"":                           "",
		"n1":                         "n1",
		"n[1-3,7]":                   "n1 n2 n3 n7",
		"n[9-11]":                    "n11 n9 n10",
		"n[08-10,100]":               "n08 n09 n10 n100",
		"n[098-101]":                 "n098 n099 n100 n101",
		"n[1,01]":                    "n1 n01",
		"login,n[1-2]":               "login n1 n2",
		"n[1-2].hpc.example.org":     "n1.hpc.example.org n2.hpc.example.org",
		"r1n[1-2],r2n1":              "r1n1 r1n2 r2n1",
		"n1-ib[0-1],n1":              "n1-ib0 n1-ib1 n1",
		"x1234[567890123-567890124]": "x1234567890123 x1234567890124",
	} {
		assert.Equal(t, want, job.Fold(strings.Fields(names)), names)
	}
}

func FuzzFold(f *testing.F) {
	for _, s := range []string{"n[1-3,7],a-[01-10]b", "r[1-2]n[1-2]", "n1.hpc2,n2.hpc2", "007,7,07", "n[098-101],n99", "1,2,3.4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, list string) {
		names, err := job.Expand(list)
		if err != nil || len(names) > 4096 {
			return
		}
		again, err := job.Expand(job.Fold(names))
		require.NoError(t, err, job.Fold(names))
		slices.Sort(names)
		slices.Sort(again)
		require.Equal(t, names, again)
	})
}
