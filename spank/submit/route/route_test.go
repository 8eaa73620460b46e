package route_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/tenants"
	"github.com/slurm-enclave/slurm-enclave/spank/submit/route"
)

func TestScan(t *testing.T) {
	for _, c := range []struct {
		name    string
		program route.Program
		line    string
		want    route.Asked
	}{
		{"nothing asked", route.Sbatch, "sbatch job.sh", route.Asked{}},
		{"the option", route.Sbatch, "sbatch --enclave job.sh", route.Asked{Enclave: true}},
		{"its value", route.Sbatch, "sbatch --enclave=digimed job.sh", route.Asked{Enclave: true, Tenant: "digimed"}},
		{"an abbreviation", route.Sbatch, "sbatch --encl=digimed job.sh", route.Asked{Enclave: true, Tenant: "digimed"}},
		{"an ambiguous abbreviation is nobody's", route.Sbatch, "sbatch --e job.sh", route.Asked{}},
		{"the script's own argument is not ours", route.Sbatch, "sbatch job.sh --enclave", route.Asked{}},
		{"the word after -- is not ours", route.Srun, "srun -- --enclave", route.Asked{}},
		{"another option's value is not ours", route.Sbatch, "sbatch --job-name --enclave job.sh", route.Asked{}},
		{"a short option's value is not ours", route.Sbatch, "sbatch -J --enclave job.sh", route.Asked{}},
		{"an unknown option with a value apart ends the scan", route.Srun, "srun --container-image img --enclave hostname", route.Asked{}},
		{"a short partition", route.Srun, "srun -p cpu hostname", route.Asked{Partition: true}},
		{"a short partition in one word", route.Srun, "srun -pcpu hostname", route.Asked{Partition: true}},
		{"a cluster of short options", route.Srun, "srun -lp cpu --enclave hostname", route.Asked{Partition: true, Enclave: true}},
		{"a long partition", route.Salloc, "salloc --partition cpu", route.Asked{Partition: true}},
		{"an abbreviated partition", route.Salloc, "salloc --part=cpu", route.Asked{Partition: true}},
		{"--parsable is no partition", route.Sbatch, "sbatch --parsable x", route.Asked{}},
		{"an account", route.Sbatch, "sbatch -A clinic --enclave x", route.Asked{Account: "clinic", Enclave: true}},
		{"an account in one word", route.Sbatch, "sbatch -Aclinic x", route.Asked{Account: "clinic"}},
		{"a long account", route.Sbatch, "sbatch --account=clinic x", route.Asked{Account: "clinic"}},
		{"--wait of sbatch takes no value", route.Sbatch, "sbatch -W --enclave x", route.Asked{Enclave: true}},
		{"--wait of srun takes one", route.Srun, "srun -W 10 --enclave x", route.Asked{Enclave: true}},
		{"no allocation", route.Srun, "srun -Z --enclave x", route.Asked{NoAllocate: true, Enclave: true}},
		{"the value that is missing", route.Srun, "srun -A", route.Asked{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			assert.Equal(t, c.want, route.Scan(c.program, strings.Fields(c.line)))
		})
	}
	t.Run("no argument vector at all", func(t *testing.T) {
		assert.Zero(t, route.Scan(route.Sbatch, nil))
	})
}

const table = `
partitions: [sev, sev-big]
tenants:
  - {name: digimed, accounts: [digimed, clinic], subtree: t/digimed, policy: p}
  - {name: genome, accounts: [genome, clinic], subtree: t/genome, policy: p, required: true}
`

func TestDecide(t *testing.T) {
	loaded, err := tenants.Load(strings.NewReader(table))
	require.NoError(t, err)
	empty, genome := "", "genome"
	sub := func(line string, with ...func(*route.Submission)) route.Submission {
		s := route.Submission{
			Program: route.Sbatch, UID: 2001, Argv: strings.Fields(line), Fallback: "cpu-sev",
		}
		for _, f := range with {
			f(&s)
		}
		return s
	}
	for _, c := range []struct {
		name      string
		s         route.Submission
		table     *tenants.Table
		partition string
		code      enclave.Code
	}{
		{"an ordinary job is left alone", sub("sbatch x"), loaded, "", ""},
		{"the option routes", sub("sbatch --enclave x"), loaded, "sev", ""},
		{"without a table the option routes unchecked", sub("sbatch --enclave=any x"), nil, "cpu-sev", ""},
		{"an #SBATCH line routes", sub("sbatch x", func(s *route.Submission) { s.Option = &empty }), loaded, "sev", ""},
		{"a named partition stays", sub("sbatch --enclave -p sev-big x"), loaded, "", ""},
		{"a partition variable stays", sub("sbatch --enclave x", func(s *route.Submission) { s.Partition = true }), loaded, "", ""},
		{"an account whose tenant requires it routes", sub("sbatch -A genome x"), loaded, "sev", ""},
		{"so does its variable", sub("sbatch x", func(s *route.Submission) { s.Account = "genome" }), loaded, "sev", ""},
		{"the command line's account beats the variable", sub("sbatch -A digimed x", func(s *route.Submission) { s.Account = "genome" }), loaded, "", ""},
		{"a step of a job is no submission", sub("srun --enclave x", func(s *route.Submission) { s.Program, s.InJob = route.Srun, true }), loaded, "", ""},
		{"sbatch within a job is one", sub("sbatch --enclave x", func(s *route.Submission) { s.InJob = true }), loaded, "sev", ""},
		{"an unknown tenant", sub("sbatch --enclave=nobody x"), loaded, "", tenants.CodeUnknownTenant},
		{"a malformed tenant, even without a table", sub("sbatch --enclave=../x x"), nil, "", tenants.CodeMalformedTenant},
		{"an account that is not entitled", sub("sbatch -A digimed --enclave=genome x"), loaded, "", tenants.CodeNotEntitled},
		{"an #SBATCH line beyond the account", sub("sbatch -A digimed x", func(s *route.Submission) { s.Option = &genome }), loaded, "", tenants.CodeNotEntitled},
		{"an account without tenant", sub("sbatch -A physics --enclave x"), loaded, "", tenants.CodeNoTenant},
		{"root", sub("sbatch --enclave x", func(s *route.Submission) { s.UID = 0 }), nil, "", route.CodeUser},
		{"a system user", sub("sbatch --enclave x", func(s *route.Submission) { s.UID = 999 }), loaded, "", route.CodeUser},
		{"root without the option", sub("sbatch x", func(s *route.Submission) { s.UID = 0 }), loaded, "", ""},
		{"no allocation", sub("srun -Z --enclave x", func(s *route.Submission) { s.Program = route.Srun }), nil, "", route.CodeNoAllocate},
	} {
		t.Run(c.name, func(t *testing.T) {
			partition, err := route.Decide(c.s, c.table)
			assert.Equal(t, c.partition, partition)
			if c.code == "" {
				require.NoError(t, err)
				return
			}
			require.Error(t, err)
			assert.True(t, strings.HasPrefix(route.Message(err), string(c.code)+": "), route.Message(err))
		})
	}
}

func FuzzScan(f *testing.F) {
	f.Add(1, "sbatch\x00--enclave=a\x00-A\x00b\x00x")
	f.Add(3, "srun\x00-lp\x00cpu\x00--\x00x")
	f.Add(2, "salloc\x00-\x00--=\x00---")
	f.Fuzz(func(t *testing.T, program int, line string) {
		got := route.Scan(route.Program(program), strings.Split(line, "\x00"))
		if got.Enclave {
			assert.Contains(t, line, "--en", "an option is never invented")
		}
	})
}
