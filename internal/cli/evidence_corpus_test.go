//go:build corpus

package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// lines are a table's, by its tabs; the heading is not among them.
func lines(t *testing.T, name string) [][]string {
	t.Helper()
	dir := os.Getenv("ENCLAVE_CORPUS")
	if dir == "" {
		t.Fatal("tag corpus is set and ENCLAVE_CORPUS is not: it names the folder of real reports")
	}
	b, err := os.ReadFile(filepath.Join(dir, name))
	require.NoError(t, err)
	var out [][]string
	for line := range strings.Lines(string(b)) {
		cells := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if cells[0] != "name" && cells[0] != "" {
			out = append(out, append(cells, filepath.Join(dir, filepath.Dir(name), cells[0])))
		}
	}
	require.NotEmpty(t, out)
	return out
}

// judged is `evidence verify --json`; the checks come by name, all eleven, in order.
func judged(t *testing.T, args ...string) (v struct {
	Valid   bool
	Product string
	Version uint32
	Checks  []enclave.Check
}, code int,
) {
	t.Helper()
	out, code, _ := run(t, "/nonexistent", append([]string{"verify", "--json"}, args...)...)
	require.NoError(t, json.Unmarshal([]byte(out), &v), out)
	names := make([]string, 0, len(v.Checks))
	for _, c := range v.Checks {
		names = append(names, c.Name)
		assert.NotEmpty(t, c.Reason, c.Name)
	}
	assert.Equal(t, []string{"parse", "length", "version", "product", "root", "chain", "validity", "crl", "tcb", "hwid", "signature"}, names)
	return v, code
}

func TestCorpusThroughTheCommand(t *testing.T) {
	for _, line := range lines(t, "MANIFEST.tsv") {
		name, product, expect, base := line[0], line[1], line[4], line[len(line)-1]
		t.Run(name+" is "+expect, func(t *testing.T) {
			report, cert := base+".report.bin", base+".cert.der"
			day, dated := strings.CutPrefix(expect, "valid-at-")
			switch {
			case expect == "unverifiable":
				v, code := judged(t, "--report", report)
				assert.Equal(t, 4, code)
				assert.False(t, v.Valid)
			case dated:
				v, code := judged(t, "--report", report, "--cert", cert, "--at", "2026-11-01T00:00:00Z")
				assert.Equal(t, 6, code)
				assert.Contains(t, v.Checks[6].Reason, "expired at")
				v, code = judged(t, "--report", report, "--cert", cert, "--at", day+"T00:00:00Z")
				assert.Equal(t, 0, code, "%v", v.Checks)
				assert.True(t, v.Valid)
			default:
				v, code := judged(t, "--report", report, "--cert", cert)
				assert.Equal(t, 0, code, "%v", v.Checks)
				assert.True(t, v.Valid)
				assert.Equal(t, strings.Replace(product, "zen4c", "genoa", 1), v.Product)
			}
		})
	}
}

func TestCorpusOfChangesThroughTheCommand(t *testing.T) {
	for _, line := range lines(t, "negative/NEGATIVE.tsv") {
		name, expect, base := line[0], line[1], line[len(line)-1]
		t.Run(name+": "+expect, func(t *testing.T) {
			v, code := judged(t, "--report", base+".report.bin", "--cert", base+".cert.der", "--at", "2026-11-01T00:00:00Z")
			cert, err := os.ReadFile(base + ".cert.der")
			require.NoError(t, err)
			switch {
			case strings.HasPrefix(expect, "accept"):
				assert.Equal(t, 0, code, "%v", v.Checks)
			case len(cert) == 0:
				assert.Equal(t, 4, code, "%v", v.Checks)
				_, code = judged(t, "--report", base+".report.bin")
				assert.Equal(t, 4, code, "without --cert it is the same")
			default:
				assert.Equal(t, 6, code, "%v", v.Checks)
				assert.False(t, v.Valid)
			}
		})
	}
}
