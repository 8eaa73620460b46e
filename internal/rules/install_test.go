package rules_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/etc"
)

// uninstalled programs are the lab's, which runs from bin/.
var uninstalled = []string{"enclave-lab", "enclave-tsm"}

// installLines are what make would run to install, without what it would run to build first.
func installLines(t *testing.T) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), "make", "-n", "-o", "build", "install", "DESTDIR=/stage")
	c.Dir = root
	c.Env = append(os.Environ(), "MAKEFLAGS=")
	out, err := c.CombinedOutput()
	require.NoErrorf(t, err, "%s", out)
	require.NotContains(t, string(out), "go build")
	return string(out)
}

func TestInstallNamesEveryProgram(t *testing.T) {
	t.Parallel()
	lines := installLines(t)
	var names []string
	for _, dir := range programs(t) {
		name := filepath.Base(dir)
		if name == "prolog" || name == "epilog" {
			name = "enclave-" + name
		}
		names = append(names, name)
	}
	for _, name := range append(names, "enclave.so", "libenclave-submit.so") {
		installed := regexp.MustCompile(`(?m)^install .*\bbin/` + regexp.QuoteMeta(name) + `( .*)? /stage/`).MatchString(lines)
		assert.Equalf(t, !slices.Contains(uninstalled, name), installed, "%s", name)
	}
}

func TestInstallNamesEveryPageAndSample(t *testing.T) {
	t.Parallel()
	lines := installLines(t)
	word := func(w string) bool {
		return regexp.MustCompile(`(?m)[ /]` + regexp.QuoteMeta(w) + `[ ;]`).MatchString(lines)
	}
	pages, err := filepath.Glob(filepath.Join(root, "docs/man/*.[1-8]"))
	require.NoError(t, err)
	require.NotEmpty(t, pages)
	for _, p := range pages {
		name := filepath.Base(p)
		assert.Equalf(t, name != "enclave-tsm.8", word(name), "%s", name)
	}
	require.NoError(t, fs.WalkDir(etc.Samples, ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			assert.Truef(t, word(path), "%s", path)
		}
		return err
	}))
}

// The units and slurm.conf name programs with their paths: they must be where make puts them.
func TestUnitsNameInstalledPrograms(t *testing.T) {
	t.Parallel()
	lines := installLines(t)
	path := regexp.MustCompile(`(?m)(?:^ExecStart|^Prolog|^Epilog|^exec)[= ](/usr/\S+)`)
	seen := 0
	for _, name := range []string{
		"systemd/enclaved.service", "systemd/enclave-host.service", "systemd/enclave-certs.service", "slurm.conf.d/enclave.conf", "prolog-slurmctld", "epilog-slurmctld",
	} {
		for _, m := range path.FindAllStringSubmatch(read(t, "etc/"+name), -1) {
			seen++
			want := `(?m)^install .*\bbin/` + regexp.QuoteMeta(filepath.Base(m[1])) + `( .*)? /stage` + regexp.QuoteMeta(filepath.Dir(m[1])) + `/$`
			assert.Truef(t, regexp.MustCompile(want).MatchString(lines), "%s: %s", name, m[1])
		}
	}
	assert.Equal(t, 7, seen)
}
