//go:build e2e

package e2e_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestP1SubmitIsRefusedWithAReason(t *testing.T) {
	t.Run("an account without a tenant", func(t *testing.T) {
		said := refused(t, "carol", "hostname", "--partition=cpu-sev")
		assert.Regexp(t, `E1\d\d`, said)
		assert.Contains(t, said, "chem")
	})
	t.Run("another account's tenant", func(t *testing.T) {
		said := refused(t, "alice", "hostname", "--enclave=astro")
		assert.Regexp(t, `E1\d\d`, said)
		assert.Contains(t, said, "astro")
	})
	t.Run("a tenant that does not exist", func(t *testing.T) {
		assert.Regexp(t, `E1\d\d`, refused(t, "alice", "hostname", "--enclave=nobody"))
	})
	t.Run("root", func(t *testing.T) {
		refused(t, "root", "hostname", "--partition=cpu-sev", "--account=digimed")
	})
	t.Run("a list of partitions of which one is an enclave's", func(t *testing.T) {
		said := refused(t, "alice", "hostname", "--partition=cpu,cpu-sev")
		assert.Regexp(t, `E1\d\d`, said)
	})
	t.Run("a heterogeneous job with an enclave component", func(t *testing.T) {
		r := on(t, "login", "alice", "sbatch", "--partition=cpu", ":", "--partition=cpu-sev", "--wrap=hostname")
		assert.NotZero(t, r.status, "%s", r)
	})
}

// withoutPlugin runs sbatch as slurmrestd or a site's own client would: no SPANK plugin is
// loaded there.
func withoutPlugin(t *testing.T, user, script string, options ...string) result {
	t.Helper()
	must(t, "login", user, "sh", "-c",
		`mkdir -p conf && cp -rL /etc/slurm/slurm.conf /etc/slurm/slurm.conf.d conf/ && : >conf/plugstack.conf &&
		 sed -i "s#^PlugStackConfig=.*#PlugStackConfig=$HOME/conf/plugstack.conf#" conf/slurm.conf`)
	argv := append([]string{"env", "SLURM_CONF=/home/" + user + "/conf/slurm.conf", "sbatch", "--parsable", "--output=slurm-%j.out"}, options...)
	return onWithInput(t, "login", user, "#!/bin/sh\n"+script+"\n", argv...)
}

func TestP1TheControllerEnforcesWithoutThePlugin(t *testing.T) {
	t.Run("no plugin is loaded there", func(t *testing.T) {
		r := withoutPlugin(t, "alice", "hostname", "--enclave")
		require.NotZero(t, r.status)
		assert.Contains(t, r.errOut, "unrecognized option")
	})
	t.Run("an account without a tenant is refused", func(t *testing.T) {
		r := withoutPlugin(t, "carol", "hostname", "--partition=cpu-sev")
		require.NotZero(t, r.status, "%s", r)
		assert.Regexp(t, `E1\d\d`, r.errOut)
	})
	t.Run("a job of an entitled account runs in an enclave", func(t *testing.T) {
		r := withoutPlugin(t, "alice", "srun printenv ENCLAVE_VERDICT", "--partition=cpu-sev")
		require.Zero(t, r.status, "%s", r)
		id := strings.TrimSpace(r.out)
		await(t, id, "COMPLETED")
		assert.Equal(t, "simulated\n", output(t, "alice", id))
		idle(t)
	})
}

func TestTheOptionRoutes(t *testing.T) {
	t.Run("sbatch --help shows the options", func(t *testing.T) {
		help := must(t, "login", "alice", "sbatch", "--help")
		assert.Contains(t, help, "[enclave]")
		assert.Contains(t, help, "--enclave")
	})
	for name, option := range map[string]string{"alone": "--enclave", "with the account's tenant": "--enclave=digimed"} {
		t.Run(name+" it sends the job to cpu-sev", func(t *testing.T) {
			id := submit(t, "alice", "hostname", option)
			await(t, id, "COMPLETED")
			assert.Equal(t, "cpu-sev", field(t, id, "Partition"))
			idle(t)
		})
	}
}

func TestARunningEnclaveIsNotChanged(t *testing.T) {
	id := submit(t, "alice", "sleep 60", "--partition=cpu-sev", "--nodes=2")
	await(t, id, "RUNNING")
	t.Cleanup(func() { on(t, "n0", "root", "scancel", id) })
	before := must(t, "n0", "root", "squeue", "-h", "-j", id, "-o", "%P %D %N %a %f %h %x")
	for _, who := range [][2]string{{"login", "alice"}, {"n0", "root"}} {
		for _, change := range []string{
			"Partition=cpu", "NumNodes=1", "NumNodes=3", "ReqNodeList=n3", "NodeList=n1", "ExcNodeList=n3", "Features=x", "Account=astro", "OverSubscribe=YES",
		} {
			r := on(t, who[0], who[1], "scontrol", "update", "JobId="+id, change)
			assert.NotZero(t, r.status, "%s of %s was taken: %s", change, who[1], r)
		}
	}
	assert.Equal(t, before, must(t, "n0", "root", "squeue", "-h", "-j", id, "-o", "%P %D %N %a %f %h %x"))
	must(t, "login", "alice", "scontrol", "update", "JobId="+id, "TimeLimit=30", "JobName=other")
}
