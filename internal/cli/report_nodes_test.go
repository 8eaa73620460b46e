package cli_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/slurm-enclave/slurm-enclave/internal/cli"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// thousandNodes is a report of as many nodes, of which two have old firmware and one was never heard of.
func thousandNodes(name string) api.Report {
	r := refusedReport()
	good, old, lost := r.Nodes[0], r.Nodes[1], r.Nodes[2]
	r.Nodes = nil
	for i := 1; i <= 1000; i++ {
		n := good
		switch i {
		case 17, 18:
			n = old
			refusal := *old.Refusal
			refusal.Node = fmt.Sprintf(name, i)
			n.Refusal = &refusal
		case 500:
			n = lost
		}
		n.Name = fmt.Sprintf(name, i)
		r.Nodes = append(r.Nodes, n)
	}
	return r
}

func TestAReportOfAThousandNodesIsOneScreen(t *testing.T) {
	t.Parallel()
	golden(t, "report-thousand", cli.ReportScreen(thousandNodes("n%04d")))
	golden(t, "report-thousand-names", cli.ReportScreen(thousandNodes("compute-%d.cluster-a.hpc.example.org")))
	t.Run("where nothing can be folded, first and last are named", func(t *testing.T) {
		t.Parallel()
		r := thousandNodes("n%d")
		for i := range r.Nodes {
			r.Nodes[i].Name = "x" + strings.Repeat("ab"[i%2:i%2+1], i%50+1) + fmt.Sprint(i*3)
		}
		screen := cli.ReportScreen(r)
		assert.Less(t, strings.Count(screen, "\n"), 40)
		assert.Contains(t, screen, "xa0, ..., xbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb2997 (997 nodes)")
	})
	t.Run("a job of few nodes has a line for each", func(t *testing.T) {
		t.Parallel()
		r := thousandNodes("n%d")
		r.Nodes = r.Nodes[:24]
		assert.Equal(t, 22, strings.Count(cli.ReportScreen(r), "  Milan     affirming"))
		assert.NotContains(t, cli.ReportScreen(r), "nodes)")
	})
	t.Run("why names the node that is at fault and no list", func(t *testing.T) {
		t.Parallel()
		assert.Less(t, len(cli.WhyScreen(cli.WhyJob(thousandNodes("n%d")))), 1000)
	})
}

func TestAJobIsNamedAsSlurmNamesIt(t *testing.T) {
	t.Parallel()
	src := &source{report: protected()}
	for _, args := range [][]string{{"report", "4711.2"}, {"report", "4711", "--restart=2"}, {"report", "4711.2", "--restart=2"}, {"why", "4711.2"}} {
		src.asked = nil
		_, code := enclaveCommand(t, src, args...)
		assert.Zero(t, code, args)
		assert.Equal(t, []uint32{4711, 2}, src.asked, args)
	}
}
