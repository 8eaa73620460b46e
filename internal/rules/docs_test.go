package rules_test

import (
	"fmt"
	"go/ast"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// samples are the files of etc/ that the guides tell an admin to copy.
var samples = []string{
	"enclave.yaml", "inventory.yaml", "tenants.yaml", "prolog-slurmctld", "epilog-slurmctld", "enclave.lua", "plugstack.conf.d/enclave.conf",
	"slurm.conf.d/enclave.conf", "slurm.conf.d/partition.conf", "policy.d/default.yaml", "systemd/enclaved.service",
	"systemd/enclave-host.service", "systemd/enclave-certs.service", "systemd/enclave-certs.timer", "modprobe.d/slurm-enclave.conf", "udev/99-slurm-enclave.rules",
}

func TestSamplesExist(t *testing.T) {
	t.Parallel()
	guide := read(t, "docs/guide/install.md")
	for _, s := range samples {
		info, err := os.Stat(filepath.Join(root, "etc", s))
		require.NoError(t, err)
		assert.NotZero(t, info.Size(), s)
		assert.Containsf(t, guide, filepath.Base(s), "the install guide does not name %s", s)
	}
}

// manual maps a folder of Go code with a command line to the page that describes it. Prolog and
// epilog share theirs.
var manual = map[string]string{
	"cmd/enclave":        "enclave.1",
	"internal/cli":       "enclave.1",
	"cmd/enclaved":       "enclaved.8",
	"cmd/enclave-lab":    "enclave-lab.8",
	"cmd/enclave-keeper": "enclave-keeper.8",
	"internal/keeper":    "enclave-keeper.8",
	"cmd/enclave-tsm":    "enclave-tsm.8",
	"internal/door":      "enclave-prolog.8",
}

// flagCall matches the methods by which pflag and flag define a flag.
var flagCall = regexp.MustCompile(`^((Bool|Count|Duration|Float64|Func|Int|Int64|String|StringArray|StringSlice|Text|Uint|Uint16|Uint32|Uint64)(Var)?|Var)P?$`)

func TestManualsNameEveryFlag(t *testing.T) {
	t.Parallel()
	inManuals(t, "flag --", flagName, `Fl -%s\b`)
}

// inManuals finds names in the code of command lines; each must stand in its page as the
// expression says, with the name in place of %s.
func inManuals(t *testing.T, what string, find func(ast.Node) string, expression string) {
	t.Helper()
	seen := 0
	for _, s := range sources(t) {
		page, ok := manual[s.dir()]
		if !ok || s.test {
			continue
		}
		text := read(t, "docs/man/"+page)
		ast.Inspect(s.file, func(n ast.Node) bool {
			if name := find(n); name != "" {
				seen++
				there := regexp.MustCompile(fmt.Sprintf(expression, regexp.QuoteMeta(name))).MatchString(text)
				assert.Truef(t, there, "%s: %s%s of %s is missing", page, what, name, s.path)
			}
			return true
		})
	}
	assert.NotZero(t, seen)
}

// flagName is the name that a call defines as a flag: its first string literal.
func flagName(n ast.Node) string {
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return ""
	}
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !flagCall.MatchString(method.Sel.Name) || len(call.Args) < 3 {
		return ""
	}
	for _, arg := range call.Args[:2] {
		if l, ok := arg.(*ast.BasicLit); ok && l.Kind == token.STRING {
			name, _ := strconv.Unquote(l.Value)
			return name
		}
	}
	return ""
}

func TestManualsNameEveryCommand(t *testing.T) {
	t.Parallel()
	inManuals(t, "command ", commandName, `(?m)\b(Nm|Ic|Cm)\b.*\b%s\b`)
}

// commandName is the first word of Use in a visible cobra.Command, or in a call of command, which
// makes one.
func commandName(n ast.Node) string {
	if call, ok := n.(*ast.CallExpr); ok && len(call.Args) > 0 {
		name, _ := call.Fun.(*ast.Ident)
		if l, ok := call.Args[0].(*ast.BasicLit); ok && name != nil && name.Name == "command" {
			use, _ := strconv.Unquote(l.Value)
			return firstWord(use)
		}
	}
	lit, ok := n.(*ast.CompositeLit)
	if !ok {
		return ""
	}
	if sel, ok := lit.Type.(*ast.SelectorExpr); !ok || sel.Sel.Name != "Command" {
		return ""
	}
	name := ""
	for _, e := range lit.Elts {
		kv, ok := e.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		key, ok := kv.Key.(*ast.Ident)
		switch {
		case ok && key.Name == "Hidden":
			return ""
		case ok && key.Name == "Use":
			if l, ok := kv.Value.(*ast.BasicLit); ok {
				use, _ := strconv.Unquote(l.Value)
				name = firstWord(use)
			}
		}
	}
	return name
}

func firstWord(s string) string {
	word, _, _ := strings.Cut(s, " ")
	return word
}

func TestManualsAreWellFormed(t *testing.T) {
	t.Parallel()
	mandoc, err := exec.LookPath("mandoc")
	if err != nil && os.Getenv("CI") != "" {
		t.Fatal("mandoc is missing")
	}
	if err != nil {
		t.Skip("mandoc is missing")
	}
	pages, err := filepath.Glob(filepath.Join(root, "docs/man/*.[1-8]"))
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(pages), 8)
	out, err := exec.CommandContext(t.Context(), mandoc, append([]string{"-Tlint", "-W", "warning"}, pages...)...).CombinedOutput()
	require.NoErrorf(t, err, "%s", out)
	assert.Empty(t, string(out))
}

// link is a Markdown link to a file of the project.
var link = regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)

func TestLinksInTheDocumentsLeadSomewhere(t *testing.T) {
	t.Parallel()
	seen := 0
	require.NoError(t, walk(func(path string) error {
		if filepath.Ext(path) != ".md" {
			return nil
		}
		for _, m := range link.FindAllStringSubmatch(read(t, path), -1) {
			seen++
			_, err := os.Stat(filepath.Join(root, filepath.Dir(path), m[1]))
			assert.NoErrorf(t, err, "%s: link to %s", path, m[1])
		}
		return nil
	}))
	assert.NotZero(t, seen)
}
