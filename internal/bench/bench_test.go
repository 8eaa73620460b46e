package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// cluster is a submit host. Its partitions answer with recorded runs, quiet unless busy; log is
// what was done.
type cluster struct {
	answers map[string]string // by partition, or "openvpn"
	files   map[string]string
	no      map[string]bool // programs that are not there
	log     []string
	jobs    int
	hang    func() // called while sbatch waits
}

func (c *cluster) Run(_ context.Context, input string, argv ...string) (string, error) {
	switch argv[0] {
	case "sinfo":
		return "cpu\ncpu-sev\nother\n", nil
	case "sh":
		if program := strings.TrimPrefix(argv[2], "command -v "); c.no[program] {
			return "", errors.New("exit status 1")
		}
		return "/usr/bin/mpicc\n", nil
	case "mpicc":
		c.files[argv[5]] = "program of " + input
		return "", nil
	case "cat":
		return c.files[argv[1]], nil
	case "rm":
		delete(c.files, argv[2])
		return "", nil
	case "scancel":
		c.log = append(c.log, "cancelled "+argv[1])
		return "", nil
	case "sbatch":
		if c.hang != nil {
			c.hang()
			return "7\n", errors.New("killed")
		}
		return c.submit(input, argv)
	}
	return "", fmt.Errorf("no program %s", argv[0])
}

func (c *cluster) submit(script string, argv []string) (string, error) {
	partition, nodes := "", ""
	for _, a := range argv {
		if v, ok := strings.CutPrefix(a, "--partition="); ok {
			partition = v
		}
		if v, ok := strings.CutPrefix(a, "--nodelist="); ok {
			nodes = " on " + v
		}
	}
	what := partition
	if strings.Contains(script, "btl_tcp_if_include=10.94.0.0/24") {
		what = OpenVPN
	}
	c.jobs++
	c.log = append(c.log, what+nodes)
	text := c.answers[what]
	if !strings.Contains(script, "program='/") {
		text = text[:strings.Index(text, "@begin mpi")] + text[strings.Index(text, "@end mpi"):]
	}
	c.files[fmt.Sprintf("/home/a/enclave-bench-%d.out", c.jobs)] = text
	return fmt.Sprintln(c.jobs), nil
}

// quiet makes a recording one of an idle machine.
func quiet(text string) string {
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if fields := strings.Fields(l); len(fields) > 2 && fields[0] == "@busy" {
			lines[i] = fmt.Sprintf("@busy %s %s 100 0 100 %d 0 0 0 0 0 0", fields[1], fields[2], map[string]int{"before": 1000, "after": 1200}[fields[2]])
		}
	}
	return strings.Join(lines, "\n")
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	return &cluster{files: map[string]string{}, no: map[string]bool{}, answers: map[string]string{
		"cpu": quiet(recorded(t, "plain")), "cpu-sev": quiet(recorded(t, "userspace")), OpenVPN: quiet(recorded(t, "openvpn")),
	}}
}

func newBench(c *cluster) *Bench {
	return &Bench{
		Slurm: c, Directory: "/home/a", Partitions: []string{"cpu", "cpu-sev", "conf"}, Repeat: 3, Seconds: 3, Source: "int main;",
		Tunnel: netip.MustParsePrefix("10.94.0.0/24"),
	}
}

func TestNet(t *testing.T) {
	t.Parallel()
	t.Run("rows alternate in turning order, on the same nodes, and leave nothing", func(t *testing.T) {
		t.Parallel()
		c := newCluster(t)
		r, err := newBench(c).Net(t.Context())
		require.NoError(t, err)
		assert.Equal(t, []string{
			"cpu", "cpu-sev", "openvpn on c1,c2",
			"openvpn on c1,c2", "cpu-sev on n1,n2", "cpu on c1,c2",
			"cpu on c1,c2", "cpu-sev on n1,n2", "openvpn on c1,c2",
		}, c.log)
		assert.Empty(t, c.files)
		require.Len(t, r.Rows, 3)
		assert.Equal(t, []string{Plain, Userspace, OpenVPN}, []string{r.Rows[0].Name, r.Rows[1].Name, r.Rows[2].Name})
		assert.True(t, r.Comparable)
		assert.Equal(t, []string{"there is no partition conf"}, r.Notes)
	})
	t.Run("the document has the rows with their figures, and the ratios to the baseline", func(t *testing.T) {
		t.Parallel()
		r, err := newBench(newCluster(t)).Net(t.Context())
		require.NoError(t, err)
		b, err := json.Marshal(r)
		require.NoError(t, err)
		var doc struct {
			Rows []struct {
				Name   string
				MPI8   float64 `json:"mpi8_us"`
				MPI1M  float64 `json:"mpi1m_us"`
				TCP    float64 `json:"tcp_gbps"`
				CPU    float64 `json:"cpu_s_per_gb"`
				Spread map[string][2]float64
			}
			Ratios []Ratio
		}
		require.NoError(t, json.Unmarshal(b, &doc))
		require.Len(t, doc.Rows, 3)
		assert.Equal(t, Userspace, doc.Rows[1].Name)
		assert.InDelta(t, 163.7, doc.Rows[1].MPI8, 0.01)
		assert.Positive(t, doc.Rows[1].MPI1M)
		assert.Positive(t, doc.Rows[1].TCP)
		assert.Positive(t, doc.Rows[1].CPU)
		assert.Equal(t, [2]float64{163.7, 163.7}, doc.Rows[1].Spread[MPI8])
		var pairs []string
		for _, one := range doc.Ratios {
			if one.Figure == TCP {
				pairs = append(pairs, one.Of+"/"+one.To+" "+one.Verdict)
			}
		}
		assert.Equal(t, []string{Userspace + "/plain lower", "openvpn/plain lower", Userspace + "/openvpn higher"}, pairs)
	})
	t.Run("a row without a figure has null there and says why", func(t *testing.T) {
		t.Parallel()
		c := newCluster(t)
		c.no["mpicc"] = true
		r, err := newBench(c).Net(t.Context())
		require.NoError(t, err)
		b, err := json.Marshal(r)
		require.NoError(t, err)
		assert.Contains(t, string(b), `"mpi8_us":null`)
		assert.Contains(t, r.Screen(), "mpicc is not here")
		assert.Contains(t, r.Screen(), "plain, MPI 8 B us: the MPI program printed nothing")
	})
	t.Run("machines that differ are not compared", func(t *testing.T) {
		t.Parallel()
		for _, change := range [][2]string{{"kernel 6.18.44", "kernel 6.1.0"}, {"model Xeon", "model EPYC"}, {"governor none", "governor powersave"}, {"cpus 2", "cpus 64"}, {"MPI v4.1.4", "MPI v5.0.1"}} {
			c := newCluster(t)
			c.answers["cpu-sev"] = strings.ReplaceAll(c.answers["cpu-sev"], change[0], change[1])
			r, err := newBench(c).Net(t.Context())
			require.NoError(t, err)
			assert.False(t, r.Comparable, "%v", change)
			for _, one := range r.Ratios {
				assert.NotEqual(t, Userspace, one.Of)
			}
			assert.Contains(t, r.Screen(), "not comparable: "+Userspace)
		}
	})
	t.Run("other nodes in a later run end the measurement", func(t *testing.T) {
		t.Parallel()
		c := newCluster(t)
		b := newBench(c)
		b.Step = func(_ string, repetition int) {
			if repetition == 1 {
				c.answers["cpu"] = strings.ReplaceAll(c.answers["cpu"], " c1 ", " c3 ")
			}
		}
		_, err := b.Net(t.Context())
		require.ErrorContains(t, err, "[c2 c3]")
		assert.Empty(t, c.files)
	})
	t.Run("a cluster without any of the partitions is an error that names its own", func(t *testing.T) {
		t.Parallel()
		b := newBench(newCluster(t))
		b.Partitions = []string{"gpu"}
		_, err := b.Net(t.Context())
		require.ErrorContains(t, err, "gpu: there are cpu, cpu-sev, other")
	})
	t.Run("a measurement that is called off takes its job back", func(t *testing.T) {
		t.Parallel()
		c := newCluster(t)
		ctx, cancel := context.WithCancel(t.Context())
		c.hang = cancel
		_, err := newBench(c).Net(ctx)
		require.ErrorIs(t, err, context.Canceled)
		assert.Equal(t, []string{"cancelled 7"}, c.log)
		assert.Empty(t, c.files)
	})
	t.Run("a job that dies is an error with the end of its output", func(t *testing.T) {
		t.Parallel()
		c := newCluster(t)
		c.answers["cpu-sev"] = "@begin mpi\nE420 no answer\n@end mpi 1\n"
		_, err := newBench(c).Net(t.Context())
		require.ErrorContains(t, err, "E420 no answer")
	})
}

func TestRatio(t *testing.T) {
	t.Parallel()
	row := func(name string, busy float64, latencies ...float64) Row {
		r := Row{Name: name, Busy: busy}
		for _, l := range latencies {
			r.runs = append(r.runs, Run{Latency: map[int]float64{8: l}})
		}
		return r
	}
	cases := map[string]struct {
		a, b Row
		want string
	}{
		"all pairs above 1 is higher":              {row("a", 0, 3, 4, 3), row("b", 0, 2, 2, 2), Higher},
		"all pairs below 1 is lower":               {row("a", 0, 1, 1, 1), row("b", 0, 2, 2, 2), Lower},
		"pairs on both sides are noise":            {row("a", 0, 3, 1, 3), row("b", 0, 2, 2, 2), Noise},
		"medians far apart with one outlier, too":  {row("a", 0, 9, 9, 9, 1, 9), row("b", 0, 2, 2, 2, 2, 2), Noise},
		"two pairs are too few":                    {row("a", 0, 3, 3), row("b", 0, 2, 2), CannotSay},
		"a busy machine says nothing":              {row("a", 0.4, 3, 3, 3), row("b", 0, 2, 2, 2), CannotSay},
		"one outlier in ten is none of the result": {row("a", 0, 3, 3, 3, 3, 3, 3, 3, 3, 3, 1), row("b", 0, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2), Higher},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, ok := ratio(MPI8, c.a, c.b)
			require.True(t, ok)
			assert.Equal(t, c.want, r.Verdict)
			assert.Equal(t, c.want == CannotSay, r.Why != "")
		})
	}
	t.Run("nothing measured is no ratio", func(t *testing.T) {
		t.Parallel()
		_, ok := ratio(MPI1M, row("a", 0, 1), row("b", 0, 1))
		assert.False(t, ok)
	})
}

func TestTheScriptIsAShellScript(t *testing.T) {
	t.Parallel()
	sh, err := exec.LookPath("sh")
	require.NoError(t, err)
	b := newBench(newCluster(t))
	b.program = "/home/a/it's"
	b.Crowded = true
	for _, r := range []route{{}, {network: b.Tunnel}, {without: []netip.Prefix{b.Tunnel}}} {
		path := t.TempDir() + "/script"
		require.NoError(t, os.WriteFile(path, []byte(b.script(r)), 0o600))
		out, err := exec.CommandContext(t.Context(), sh, "-n", path).CombinedOutput()
		require.NoErrorf(t, err, "%s", out)
	}
	assert.Contains(t, b.script(route{without: []netip.Prefix{b.Tunnel}}), "btl_tcp_if_exclude=127.0.0.0/8,10.94.0.0/24")
	assert.NotContains(t, b.script(route{}), "if_exclude")
}

func TestVPNConfiguration(t *testing.T) {
	t.Parallel()
	v := VPN{Network: netip.MustParsePrefix("10.94.0.0/24"), Port: 1194, Ends: [2]End{{Address: netip.MustParseAddr("10.93.2.1")}, {Address: netip.MustParseAddr("10.93.2.2")}}}
	c, err := v.Configs()
	require.NoError(t, err)
	for i, text := range c {
		for _, line := range []string{"data-ciphers AES-128-CBC", "auth SHA256", "disable-dco", "proto udp4", fmt.Sprintf("ifconfig 10.94.0.%d 255.255.255.0", i+1)} {
			assert.Contains(t, text, "\n"+line+"\n")
		}
	}
	assert.Contains(t, c[0], "\ntls-server\n")
	assert.Contains(t, c[1], "\ntls-client\n")
	assert.NotEqual(t, c[0], c[1])
}
