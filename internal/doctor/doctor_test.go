package doctor_test

import (
	"maps"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/doctor"
	"github.com/slurm-enclave/slurm-enclave/internal/doctor/doctortest"
	"github.com/slurm-enclave/slurm-enclave/internal/ladder"
)

const (
	conf      = "/etc/slurm/slurm.conf"
	sample    = "/etc/slurm/slurm.conf.d/enclave.conf"
	partition = "/etc/slurm/slurm.conf.d/partition.conf"
)

// host is a controller by the book.
func host(t *testing.T) doctortest.Files {
	t.Helper()
	f, err := doctortest.Host()
	require.NoError(t, err)
	return f
}

func examine(t *testing.T, f doctortest.Files, change func(*doctor.Site)) []doctor.Symptom {
	t.Helper()
	s, err := doctortest.Site(f)
	require.NoError(t, err)
	if change != nil {
		change(&s)
	}
	return doctor.Examine(s)
}

// broken are the rules that a site breaks.
func broken(found []doctor.Symptom) []doctor.Symptom {
	var out []doctor.Symptom
	for _, s := range found {
		if s.Result != ladder.Pass {
			out = append(out, s)
		}
	}
	return out
}

func TestTheSamplesKeepEveryRule(t *testing.T) {
	t.Parallel()
	found := examine(t, host(t), func(s *doctor.Site) {
		s.Administrator = "Administrator"
		s.Live = map[string]string{"prologflags": "Contain,Alloc", "messagetimeout": "30 sec", "accountingstorageenforce": "associations,limits"}
	})
	assert.Empty(t, broken(found))
	assert.Empty(t, broken(examine(t, host(t), onNode)))
	for _, s := range found {
		assert.NotEmpty(t, s.Reason, s.Name)
	}
}

// breakage is one way to break one rule: a file gets another text in place of what it has.
type breakage struct {
	file, from, to string
	code           string
	fix            string // of the line to write
	change         func(*doctor.Site)
}

func breakages() map[string]breakage {
	const whole = "\x00" // the whole file
	all := map[string]breakage{
		"another cluster's name":             {file: conf, from: "ClusterName=mycluster", to: "ClusterName=other", code: "E017", fix: "cluster: other"},
		"a SlurmUser that we do not know":    {file: conf, from: "SlurmUser=slurm\n", code: "E036", fix: "controller.slurm_user: root"},
		"slurmctld on another port":          {file: conf, from: "SlurmUser", to: "SlurmctldPort=7000\nSlurmUser", code: "E038", fix: "slurm.slurmctld.port: 7000"},
		"slurmd on another port":             {file: conf, from: "SlurmUser", to: "SlurmdPort=7001\nSlurmUser", code: "E038", fix: "slurm.slurmd_port: 7001"},
		"no SrunPortRange":                   {file: sample, from: "SrunPortRange=61001-61200", code: "E028", fix: "add to /etc/slurm/slurm.conf: SrunPortRange=61001-61200"},
		"another SrunPortRange":              {file: sample, from: "61001-61200", to: "50000-50010", code: "E028", fix: "SrunPortRange=61001-61200"},
		"ports of connections":               {file: "/proc/sys/net/ipv4/ip_local_port_range", from: "60999", to: "65535", code: "E028", fix: "above 65535"},
		"no enclave partition":               {file: partition, from: "PartitionName=cpu-sev", to: "PartitionName=sev", code: "E018", fix: "PartitionName=cpu-sev Nodes=..."},
		"a node of two partitions":           {file: conf, from: "Nodes=c[1-4]", to: "Nodes=c[1-4],n2", code: "E019", fix: "take n2 out of Nodes of partition cpu"},
		"a partition of all nodes":           {file: conf, from: "PartitionName=cpu Nodes=c[1-4]", to: "PartitionName=all Nodes=ALL", code: "E019", fix: "partition all"},
		"a node set with our nodes":          {file: conf, from: "PartitionName=cpu Nodes=c[1-4]", to: "NodeSet=big Nodes=c[1-2],n2\nPartitionName=cpu Nodes=big", code: "E019", fix: "take n2 out"},
		"a node set by feature":              {file: conf, from: "NodeName=n[1-2],c[1-4] State=UNKNOWN\nPartitionName=cpu Nodes=c[1-4]", to: "NodeName=n[1-2] Features=x,Sev\nNodeSet=big Feature=sev\nPartitionName=cpu Nodes=big", code: "E019", fix: "take n1 out"},
		"a node that no inventory has":       {file: partition, from: "n[1-2]", to: "n[1-3]", code: "E039", fix: "add n3 to"},
		"shared nodes":                       {file: partition, from: "OverSubscribe=EXCLUSIVE", to: "OverSubscribe=YES", code: "E020", fix: "OverSubscribe=EXCLUSIVE"},
		"sharing that nobody spoke of":       {file: partition, from: "OverSubscribe=EXCLUSIVE ", code: "E020", fix: "OverSubscribe=EXCLUSIVE"},
		"preemption in the partition":        {file: partition, from: "PreemptMode=OFF", to: "PreemptMode=SUSPEND", code: "E021", fix: "PreemptMode=OFF"},
		"preemption in the cluster":          {file: partition, from: "PreemptMode=OFF", code: "E021", fix: "PreemptMode=OFF", change: nil},
		"an enclave by default":              {file: partition, from: "State=UP", to: "State=UP Default=Yes", code: "E056", fix: "Default=YES belongs into another partition's line, not into that of cpu-sev"},
		"jobs of root":                       {file: partition, from: "DisableRootJobs=YES", to: "DisableRootJobs=NO", code: "E022", fix: "DisableRootJobs=YES"},
		"a prolog at the first step":         {file: sample, from: "PrologFlags=Alloc,Contain", to: "PrologFlags=X11", code: "E023", fix: "PrologFlags=Alloc,Contain,X11"},
		"no PrologFlags":                     {file: sample, from: "PrologFlags=Alloc,Contain", code: "E023", fix: "add to /etc/slurm/slurm.conf: PrologFlags=Alloc,Contain"},
		"prologs one by one":                 {file: sample, from: "Alloc,Contain", to: "Alloc,Contain,Serial", code: "E024", fix: "PrologFlags=Alloc,Contain"},
		"prologs in the job":                 {file: sample, from: "Alloc,Contain", to: "Alloc,Contain,RunInJob", code: "E024", fix: "PrologFlags=Alloc,Contain"},
		"no Prolog":                          {file: sample, from: "\nProlog=/usr/libexec/slurm-enclave/enclave-prolog", code: "E030", fix: "Prolog=/usr/libexec/slurm-enclave/enclave-prolog"},
		"a Prolog of others":                 {file: sample, from: "\nProlog=/usr/libexec/slurm-enclave/enclave-prolog", to: "\nProlog=/site/prolog.d/*", code: "E030", fix: "call /usr/libexec/slurm-enclave/enclave-prolog"},
		"an Epilog of others":                {file: sample, from: "Epilog=/usr/libexec/slurm-enclave/enclave-epilog", to: "Epilog=/bin/true", code: "E030", fix: "enclave-epilog"},
		"no PrologSlurmctld":                 {file: sample, from: "PrologSlurmctld=/etc/slurm-enclave/prolog-slurmctld", code: "E031", fix: "PrologSlurmctld=/etc/slurm-enclave/prolog-slurmctld"},
		"an EpilogSlurmctld of others":       {file: sample, from: "/etc/slurm-enclave/epilog-slurmctld", to: "/bin/true", code: "E031", fix: "EpilogSlurmctld=/etc/slurm-enclave/epilog-slurmctld"},
		"a wrapper without our partition":    {file: "/etc/slurm-enclave/prolog-slurmctld", from: "--partition cpu-sev", to: "--partition cpu", code: "E031", fix: "--partition cpu-sev"},
		"a wrapper that has ours as comment": {file: "/etc/slurm-enclave/epilog-slurmctld", from: "exec ", to: "# exec ", code: "E031", fix: "EpilogSlurmctld="},
		"a prolog that may hang":             {file: sample, from: "PrologEpilogTimeout=120", code: "E025", fix: "PrologEpilogTimeout=120"},
		"a prolog that is cut off":           {file: sample, from: "PrologEpilogTimeout=120", to: "PrologEpilogTimeout=90", code: "E025", fix: "PrologEpilogTimeout=120"},
		"a prolog with a limit of its own":   {file: sample, from: "PrologEpilogTimeout=120", to: "PrologEpilogTimeout=120\nPrologTimeout=30", code: "E025", fix: ": PrologTimeout=120"},
		"an epilog with a limit of its own":  {file: sample, from: "PrologEpilogTimeout=120", to: "PrologEpilogTimeout=120\nEpilogTimeout=60", code: "E025", fix: ": EpilogTimeout=120"},
		"an epilog that may hang":            {file: sample, from: "PrologEpilogTimeout=120", to: "PrologTimeout=120", code: "E025", fix: "PrologEpilogTimeout=120"},
		"a prolog alone that may hang":       {file: sample, from: "PrologEpilogTimeout=120", to: "EpilogTimeout=120", code: "E025", fix: "PrologEpilogTimeout=120"},
		"a barrier longer than the prolog":   {change: func(s *doctor.Site) { s.Config.Limits.BarrierSeconds = 100 }, code: "E025", fix: "PrologEpilogTimeout=160"},
		"messages that time out":             {file: sample, from: "MessageTimeout=30", code: "E026", fix: "MessageTimeout=30"},
		"batch jobs that time out":           {file: sample, from: "BatchStartTimeout=120", to: "BatchStartTimeout=ten", code: "E027", fix: "BatchStartTimeout=120"},
		"jobs on hold":                       {file: sample, from: "SchedulerParameters=nohold_on_prolog_fail", to: "SchedulerParameters=defer", code: "E029", fix: "SchedulerParameters=defer,nohold_on_prolog_fail"},
		"no requeue":                         {file: conf, from: "SlurmUser", to: "JobRequeue=0\nSlurmUser", code: "E040", fix: "JobRequeue=1"},
		"processes without a cgroup":         {file: conf, from: "proctrack/cgroup", to: "proctrack/linuxproc", code: "E041", fix: "ProctrackType=proctrack/cgroup"},
		"no job_submit plugin":               {file: sample, from: "JobSubmitPlugins=lua", code: "E032", fix: "JobSubmitPlugins=lua"},
		"other job_submit plugins":           {file: sample, from: "JobSubmitPlugins=lua", to: "JobSubmitPlugins=all_partitions", code: "E032", fix: "JobSubmitPlugins=all_partitions,lua"},
		"accounts at will":                   {file: sample, from: "AccountingStorageEnforce=associations\n", code: "E033", fix: "AccountingStorageEnforce=associations"},
		"accounts that only count":           {file: sample, from: "Enforce=associations", to: "Enforce=nojobs,nosteps", code: "E033", fix: "AccountingStorageEnforce=associations"},
		"no accounting":                      {file: conf, from: "accounting_storage/slurmdbd", to: "accounting_storage/none", code: "E034", fix: "AccountingStorageType=accounting_storage/slurmdbd"},
		"an enclaved without rights":         {change: func(s *doctor.Site) { s.Administrator = "None" }, code: "E043", fix: "adminlevel=Administrator"},
		"no job_submit.lua":                  {file: "/etc/slurm/job_submit.lua", from: whole, code: "E035", fix: "dofile("},
		"a job_submit.lua that modifies":     {file: "/etc/slurm/job_submit.lua", from: "return enclave.modify(d, r, p, uid)", code: "E035", fix: "enclave.modify"},
		"our lines as a comment":             {file: "/etc/slurm/job_submit.lua", from: "local enclave", to: "-- local enclave", code: "E035", fix: "dofile("},
		"no gate":                            {file: "/etc/slurm/plugstack.conf.d/enclave.conf", from: "\nrequired ", to: "\n# required ", code: "E042", fix: "required enclave.so"},
		"an optional gate":                   {file: "/etc/slurm/plugstack.conf.d/enclave.conf", from: "\nrequired ", to: "\noptional ", code: "E042", fix: "required"},
		"a gate that others could have made": {change: func(s *doctor.Site) {
			f := s.Files.(doctortest.Files)
			f.Insecure = []string{"/usr/lib/slurm/enclave.so"}
			s.Files = f
		}, code: "E042"}, //nolint:forcetypeassert // it is
		"ssh that passes by the job":    {file: "/etc/pam.d/sshd", to: "account required pam_slurm_adopt.so\n", code: "E044", fix: "line 1: account required pam_slurm_adopt.so action_adopt_failure=deny"},
		"preemption by QOS":             {file: conf, from: "SlurmUser", to: "PreemptType=preempt/qos\nPreemptMode=REQUEUE\nSlurmUser", code: "E046", fix: "PreemptType=preempt/partition_prio"},
		"a slurmctld that was not told": {change: func(s *doctor.Site) { s.Live = map[string]string{"prologflags": "Alloc"} }, code: "E045", fix: "scontrol reconfigure"},
		"namespaces that are not made":  {change: func(s *doctor.Site) { s.Config.Storage.Isolation = "namespace" }, code: "E323", fix: "JobContainerType=job_container/tmpfs"},
	}
	maps.Copy(all, breakagesOfNodes())
	maps.Copy(all, breakagesOfRest())
	return all
}

func TestEveryBrokenRuleIsNamedWithTheLineToChange(t *testing.T) {
	t.Parallel()
	for name, b := range breakages() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := host(t)
			if name == "preemption in the cluster" {
				f.Text[conf] = strings.Replace(f.Text[conf], "SlurmUser", "PreemptMode=REQUEUE\nSlurmUser", 1)
			}
			switch {
			case b.from == "\x00":
				delete(f.Text, b.file)
			case b.from == "" && b.file != "":
				f.Text[b.file] = b.to
			case b.file != "":
				require.Contains(t, f.Text[b.file], b.from)
				f.Text[b.file] = strings.Replace(f.Text[b.file], b.from, b.to, 1)
			}
			found := broken(examine(t, f, b.change))
			require.Len(t, found, 1, "this breaks one rule and no other")
			assert.Equal(t, b.code, string(found[0].Code), found[0].Reason)
			assert.Contains(t, found[0].Fix, b.fix)
			assert.NotEmpty(t, found[0].Fix)
		})
	}
}

func TestLimitsOfPrologAndEpilogApart(t *testing.T) {
	t.Parallel()
	for name, lines := range map[string]string{
		"each by its own name":                         "PrologTimeout=91\nEpilogTimeout=61",
		"each by its own name beside a common one":     "PrologEpilogTimeout=20\nPrologTimeout=120\nEpilogTimeout=120",
		"a common one that only the prolog is held to": "PrologEpilogTimeout=120\nEpilogTimeout=61",
		"a common one for both":                        "PrologEpilogTimeout=91",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := host(t)
			require.Contains(t, f.Text[sample], "PrologEpilogTimeout=120")
			f.Text[sample] = strings.Replace(f.Text[sample], "PrologEpilogTimeout=120", lines, 1)
			assert.Empty(t, broken(examine(t, f, nil)))
		})
	}
}

func TestEveryRuleIsBrokenByATest(t *testing.T) {
	t.Parallel()
	tried := map[string]bool{}
	for _, b := range breakages() {
		tried[b.code] = true
	}
	for _, file := range []string{"identity.go", "partition.go", "prolog.go", "scheduling.go", "files.go", "live.go", "host.go", "firewall.go"} {
		source, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, code := range regexp.MustCompile(`"(E\d\d\d)"`).FindAllStringSubmatch(string(source), -1) {
			assert.True(t, tried[code[1]], "%s in %s", code[1], file)
		}
	}
}

func TestAScriptOfTheSiteThatCallsOursIsWell(t *testing.T) {
	t.Parallel()
	f := host(t)
	f.Text[sample] = strings.Replace(f.Text[sample], "\nProlog=/usr/libexec/slurm-enclave/enclave-prolog", "\nProlog=prolog.d/*", 1)
	f.Text["/etc/slurm/prolog.d/10-site"] = "#!/bin/sh\nexit 0\n"
	f.Text["/etc/slurm/prolog.d/90-enclave"] = "#!/bin/sh\nexec /usr/libexec/slurm-enclave/enclave-prolog\n"
	assert.Empty(t, broken(examine(t, f, nil)))
}
