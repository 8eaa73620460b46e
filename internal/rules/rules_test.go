// Package rules_test holds the house rules that a machine can check: they bind the tree as a
// whole and belong to no room.
//
// It judges form only. What programs do is tested where they are.
package rules_test

import (
	"go/ast"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	t.Parallel()
	names, docs := map[string]string{}, map[string]string{}
	for _, s := range sources(t) {
		if _, ok := names[s.dir()]; !ok || !s.test {
			names[s.dir()] = s.file.Name.Name
		}
		if s.file.Doc != nil {
			docs[s.dir()] += s.file.Doc.Text()
		}
	}
	for dir, name := range names {
		doc := docs[dir]
		good := strings.HasPrefix(doc, "Package "+name+" ") || name == "main" && strings.HasPrefix(doc, "Command ")
		assert.Truef(t, good, "%s: want a package doc that begins with its name", dir)
	}
}

func TestAFileTellsOneStory(t *testing.T) {
	t.Parallel()
	const most = 350
	kinds := []string{".go", ".c", ".h"}
	seen := 0
	require.NoError(t, walk(func(path string) error {
		if !slices.Contains(kinds, filepath.Ext(path)) || strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, ".gen.go") {
			return nil
		}
		seen++
		assert.LessOrEqual(t, lines(t, path), most, path)
		return nil
	}))
	assert.Greater(t, seen, 50)
}

// programs are the folders that end in a Go program of the project.
func programs(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, s := range sources(t) {
		dir := s.dir()
		if s.file.Name.Name == "main" && !s.test && (strings.HasPrefix(dir, "cmd/") || dir == "prolog" || dir == "epilog") {
			all = append(all, dir)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func TestGoProgramsNeedNoC(t *testing.T) {
	t.Parallel()
	list := func(cgo, format string) string {
		args := []string{"list", "-deps", "-f", format}
		for _, p := range programs(t) {
			args = append(args, "./"+p)
		}
		c := exec.CommandContext(t.Context(), "go", args...)
		c.Dir = root
		c.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
		c.Stderr = os.Stderr
		out, err := c.Output()
		require.NoError(t, err)
		return string(out)
	}
	// With cgo on, the standard library may use it, but nothing of ours or of others.
	assert.Empty(t, strings.TrimSpace(list("1", "{{if and .CgoFiles (not .Standard)}}{{.ImportPath}}{{end}}")))
	without := strings.Fields(list("0", "{{.ImportPath}}"))
	assert.NotContains(t, without, "runtime/cgo")
	assert.Contains(t, without, "runtime", "the list is not one of a program")
}

func TestCStaysInThePlugin(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		for _, i := range s.file.Imports {
			if i.Path.Value == `"C"` {
				assert.Truef(t, strings.HasPrefix(s.path, "spank/"), "%s imports C", s.path)
			}
		}
	}
}

func TestNothingHappensBeforeMain(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			ok = ok && !s.test // a test may start its own program again before the testing package runs
			assert.Falsef(t, ok && f.Recv == nil && f.Name.Name == "init", "%s has an init function", s.path)
		}
	}
}

func TestNamesSayWhatIsInside(t *testing.T) {
	t.Parallel()
	empty := []string{"util", "utils", "common", "helper", "helpers", "manager", "base", "misc"}
	for _, s := range sources(t) {
		name := strings.TrimSuffix(strings.TrimSuffix(filepath.Base(s.path), ".go"), "_test")
		assert.NotContains(t, empty, s.file.Name.Name, s.path)
		assert.NotContains(t, empty, name, s.path)
	}
}

// Codes are what people search for: two meanings of one would send half of them the wrong way.
func TestACodeHasOneMeaning(t *testing.T) {
	t.Parallel()
	code := regexp.MustCompile(`^"E[0-5][0-9]{2}"$`)
	names := map[string][]string{}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			for i, v := range spec.Values {
				if l, ok := v.(*ast.BasicLit); ok && code.MatchString(l.Value) {
					names[l.Value] = append(names[l.Value], s.dir()+"."+spec.Names[i].Name)
				}
			}
			return true
		})
	}
	assert.Greater(t, len(names), 10)
	for c, where := range names {
		assert.Lenf(t, where, 1, "%s is defined as %s", c, strings.Join(where, " and "))
	}
}

// A test that is skipped in silence is a hole nobody sees: the lines above a skip fail in CI.
func TestASkipFailsInCI(t *testing.T) {
	t.Parallel()
	skip := regexp.MustCompile(`\b[tbf]\.Skip(f|Now)?\(`)
	for _, s := range sources(t) {
		if !s.test || strings.HasPrefix(s.path, "internal/rules/") {
			continue
		}
		text := strings.Split(read(t, s.path), "\n")
		for i, line := range text {
			if !skip.MatchString(line) {
				continue
			}
			before := strings.Join(text[max(0, i-8):i], "\n")
			assert.Containsf(t, before, `os.Getenv("CI")`, "%s:%d skips in CI, too", s.path, i+1)
		}
	}
}
