//go:build vm

package vmtest_test

import (
	"cmp"
	"io/fs"
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/host/vmtest"
)

// suite is the tests of a package, which are run inside one machine: its nodes are namespaces.
type suite struct {
	pkg  string // below internal/host
	env  []string
	run  string // -test.run, "" is all
	skip string // -test.skip
	few  bool   // -test.short
	says string // a line that must be there
}

// big is the one machine, made for the first test that needs it. One processor does most in the time there is: two that
// this machine's processors emulate in turn wait for each other.
func (f *fleet) big(t *testing.T) *vmtest.Machine {
	t.Helper()
	if f.host == nil {
		f.host = f.bootForSuites(t, 1, "tunnel", "link", "filter", "spawn", "process", "mount", "ipc", "survey")
		require.NoError(t, f.host.Await())
	}
	return f.host
}

// bootForSuites starts a machine that has the packages' tests.
func (f *fleet) bootForSuites(t *testing.T, processors int, packages ...string) *vmtest.Machine {
	t.Helper()
	dir, err := f.scratch()
	require.NoError(t, err)
	top, err := vmtest.Top()
	require.NoError(t, err)
	c := vmtest.Contents{}
	for _, pkg := range packages {
		to := filepath.Join(dir, pkg)
		require.NoError(t, vmtest.Compile(to, "./internal/host/"+pkg, true))
		c["/src/internal/host/"+pkg+"/"+pkg+".test"] = to
	}
	require.NoError(t, vmtest.Compile(filepath.Join(dir, "agent"), "./internal/host/vmtest", true))
	c["/agent"] = filepath.Join(dir, "agent")
	golden := filepath.Join(top, "internal/fence/testdata")
	require.NoError(t, filepath.WalkDir(golden, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			c["/src"+strings.TrimPrefix(name, top)] = name
		}
		return err
	}))
	c["/etc/protocols"] = "/etc/protocols"
	for to, name := range map[string]string{"/usr/bin/perl": "perl", "/sbin/mkfs.ext4": "mkfs.ext4", "/usr/bin/unshare": "unshare", "/usr/bin/id": "id", "/usr/bin/head": "head"} {
		c[to], err = exec.LookPath(name)
		require.NoError(t, err)
	}
	img, err := vmtest.Build(dir, c)
	require.NoError(t, err)
	m, err := vmtest.Boot(img, vmtest.Options{Name: "big", Directory: dir, Processors: processors, Memory: 1536})
	require.NoError(t, err)
	return m
}

var result = regexp.MustCompile(`^ *--- (PASS|FAIL|SKIP): (\S+) \(`)

// inside runs a suite and repeats its results as subtests, so that they are counted.
func (s suite) inside(t *testing.T, m *vmtest.Machine) {
	t.Helper()
	run := "."
	if s.run != "" {
		run = s.run
	}
	dir := "/src/internal/host/" + s.pkg
	argv := []string{dir + "/" + s.pkg + ".test", "-test.v", "-test.run", run, "-test.skip", cmp.Or(s.skip, "^$")}
	if s.few {
		argv = append(argv, "-test.short")
	}
	p := m.Start(vmtest.Command{Argv: argv, Dir: dir, Env: s.env})
	out, ok := p.Wait(15 * time.Minute)
	assert.True(t, ok, "%s\n%s", out, m.Console())
	assert.Contains(t, out, s.says)
	found := map[string]string{} // of a test that runs itself again the last word counts
	for line := range strings.Lines(out) {
		if r := result.FindStringSubmatch(line); r != nil {
			found[r[2]] = r[1]
		}
	}
	assert.NotEmpty(t, found, out)
	for _, name := range slices.Sorted(maps.Keys(found)) {
		t.Run(name, func(t *testing.T) { assert.Equal(t, "PASS", found[name]) })
	}
}

// muchWork are tests that send hundreds of thousands of packets, or bring nodes up dozens of times: on
// an emulated processor they take longer than all others together. Parts of them run below, all with the tag vmlong.
const muchWork = "^Test(Guard|Inward|Exhaustion|Sites|FirstContact)$"

// TestP2SuitesOnKernelWireGuard runs the tests of mesh, fence, leaks and injection on the
// kernel's WireGuard, and on the keeper's with the same kernel.
func TestP2SuitesOnKernelWireGuard(t *testing.T) {
	m := machines.big(t)
	for name, s := range map[string]suite{
		"kernel WireGuard": {pkg: "tunnel", says: "driver wireguard", skip: muchWork},
		"the keeper guards the kernel's": {
			pkg: "tunnel", run: "^TestGuard$/^(all_of_nftables|a_policy_rule_is_deleted|the_interface_is_deleted)",
		},
		"the keeper's": {
			pkg: "tunnel", env: []string{"TUNNEL_TEST_DRIVER=tun"}, run: "^Test(Driver|Enclave|TheTunnelGoes)$", says: "driver tun",
		},
		"links":  {pkg: "link"},
		"tables": {pkg: "filter"},
	} {
		t.Run(name, func(t *testing.T) { s.inside(t, m) })
	}
}

// TestP2PartsOfLongSuitesOnKernelWireGuard: what a neighbour tries, with fewer ports; what sites have of
// their own.
func TestP2PartsOfLongSuitesOnKernelWireGuard(t *testing.T) {
	m := machines.bootForSuites(t, 1, "tunnel")
	t.Cleanup(m.Stop)
	require.NoError(t, m.Await())
	for name, s := range map[string]suite{
		"a neighbour's attempts": {run: "^TestInward$", few: true},
		"sites":                  {run: "^TestSites$/^(reverse_path_filter_(strict|loose)|firewalld|jumbo|the_smallest)"},
	} {
		s.pkg, s.says = "tunnel", "PASS"
		t.Run(name, func(t *testing.T) { s.inside(t, m) })
	}
}

// TestP2SuitesOnTwoProcessors: the kernel's WireGuard hands its packets from one to the other.
func TestP2SuitesOnTwoProcessors(t *testing.T) {
	m := machines.bootForSuites(t, 2, "tunnel")
	t.Cleanup(m.Stop)
	require.NoError(t, m.Await())
	require.Equal(t, "0-1", strings.TrimSpace(m.Run(t, "cat", "/sys/devices/system/cpu/online")))
	suite{pkg: "tunnel", says: "driver wireguard", run: "^Test(Driver|TheTunnelGoes|Injection|FirstContact)$"}.inside(t, m)
}

// TestP4SuitesOnCgroupV2 runs the tests of what a job leaves behind where the only hierarchy is
// cgroup v2.
func TestP4SuitesOnCgroupV2(t *testing.T) {
	m := machines.big(t)
	require.Contains(t, m.Run(t, "cat", "/proc/mounts"), " /sys/fs/cgroup cgroup2 ")
	for _, s := range []suite{
		{pkg: "spawn"},
		{pkg: "process"},
		{pkg: "ipc"},
		{pkg: "survey", run: "^TestClosed$"}, // the others want a compiler
		{pkg: "mount", run: "^Test[^K]"},     // TestKilled kills at every step in turn, for minutes
	} {
		t.Run(s.pkg, func(t *testing.T) { s.inside(t, m) })
	}
}
