package cli_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// guideCommands are the shell blocks of a guide's section.
func guideCommands(t *testing.T, section string) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/guide/audit.md")
	require.NoError(t, err)
	_, text, ok := strings.Cut(string(b), "\n## "+section+"\n")
	require.True(t, ok, "the guide has no section %q", section)
	text, _, _ = strings.Cut(text, "\n## ")
	var script strings.Builder
	blocks := strings.Split(text, "```")
	for i := 1; i < len(blocks); i += 2 {
		script.WriteString(strings.TrimPrefix(blocks[i], "sh\n"))
	}
	require.GreaterOrEqual(t, len(blocks), 11, "five blocks")
	return script.String()
}

func TestP6TheGuidesCommandsCheckAReceiptWithoutOurProgram(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"bash", "jq", "openssl", "basenc"} {
		_, err := exec.LookPath(program)
		if err != nil && os.Getenv("CI") != "" {
			t.Fatal(program + " is missing")
		}
		if err != nil {
			t.Skip(program + " is missing")
		}
	}
	script := guideCommands(t, "Without any program of ours")
	run := func(o *office) (string, error) {
		c := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script)
		c.Dir = o.dir
		out, err := c.CombinedOutput()
		return string(out), err
	}
	t.Run("a good one passes", func(t *testing.T) {
		t.Parallel()
		out, err := run(newOffice(t, false))
		require.NoError(t, err, out)
		assert.Contains(t, out, "Signature Verified Successfully")
		assert.Contains(t, out, "Verified OK")
		assert.Contains(t, out, "vcek.pem: OK")
		assert.Contains(t, out, "bound")
	})
	t.Run("one of another key fails", func(t *testing.T) {
		t.Parallel()
		o := newOffice(t, false)
		o.write("key.pem", publicPEM(t, newOffice(t, false).scene.Public()))
		out, err := run(o)
		require.Error(t, err)
		assert.Contains(t, out, "Signature Verification Failure")
	})
	t.Run("a report whose signature is another's fails", func(t *testing.T) {
		t.Parallel()
		o := newOffice(t, false)
		p := &o.scene.Statement.Predicate
		p.Nodes[0].Evidence[0].Report = p.Nodes[1].Evidence[0].Report
		o.write("r.json", o.seal())
		out, err := run(o)
		require.Error(t, err)
		assert.Contains(t, out, "Verification failure")
	})
	t.Run("a claim of another job fails", func(t *testing.T) {
		t.Parallel()
		o := newOffice(t, false)
		o.scene.Statement.Predicate.Nodes[0].Evidence[0].Claim.Job++
		o.write("r.json", o.seal())
		out, _ := run(o) // a shell goes on behind a comparison that ends in words
		assert.Contains(t, out, "Verified OK")
		assert.NotContains(t, out, "bound")
	})
}
