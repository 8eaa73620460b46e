package luatest_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/tenants"
)

// interpreters are the versions that slurmctld may be built against; Debian's is 5.1.
var interpreters = []string{"lua5.1", "luajit", "lua5.3", "lua5.4"}

func TestEnclaveLua(t *testing.T) {
	yaml, err := os.ReadFile("../../internal/tenants/testdata/tenants.yaml")
	require.NoError(t, err)
	table, err := tenants.Load(bytes.NewReader(yaml))
	require.NoError(t, err)
	// Opened here so that go test's cache knows of them.
	for _, script := range []string{"enclave_test.lua", "../../etc/enclave.lua"} {
		_, err := os.ReadFile(script)
		require.NoError(t, err)
	}
	found := false
	for _, lua := range interpreters {
		path, err := exec.LookPath(lua)
		if err != nil {
			continue
		}
		found = true
		t.Run(lua, func(t *testing.T) {
			dir := t.TempDir()
			rendered := filepath.Join(dir, "tenants.lua")
			require.NoError(t, os.WriteFile(rendered, table.RenderLua(true, 12), 0o600))
			out, err := exec.CommandContext(t.Context(), path, "enclave_test.lua",
				"../../etc/enclave.lua", rendered, filepath.Join(dir, "other.lua")).CombinedOutput()
			require.NoError(t, err, "%s", out)
			assert.Regexp(t, `^ok \d\d+ cases\n$`, string(out))
		})
	}
	if !found {
		if os.Getenv("CI") != "" {
			t.Fatal("no Lua interpreter (Debian: lua5.3)")
		}
		t.Skip("no Lua interpreter (Debian: lua5.3)")
	}
}
