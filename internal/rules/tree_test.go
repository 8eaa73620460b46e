package rules_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

const root = "../.."

// source is one parsed Go file of the project.
type source struct {
	path string // from the project's root, with slashes
	file *ast.File
	test bool
}

// dir is the folder of the file.
func (s source) dir() string { return filepath.ToSlash(filepath.Dir(s.path)) }

// parsed is the whole tree, read once for all tests.
var parsed = sync.OnceValues(func() ([]source, error) {
	var all []source
	err := walk(func(path string) error {
		if filepath.Ext(path) != ".go" {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, path), nil, parser.ParseComments|parser.SkipObjectResolution)
		all = append(all, source{path: path, file: f, test: strings.HasSuffix(path, "_test.go")})
		return err
	})
	return all, err
})

func sources(t *testing.T) []source {
	t.Helper()
	all, err := parsed()
	require.NoError(t, err)
	require.Greater(t, len(all), 50, "the tree was not found")
	return all
}

// walk visits the project's own files: neither what was built nor what is hidden.
func walk(visit func(path string) error) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		name := d.Name()
		switch {
		case d.IsDir() && rel != "." && (strings.HasPrefix(name, ".") || name == "bin" || name == "testdata"):
			return filepath.SkipDir
		case d.Type().IsRegular():
			return visit(filepath.ToSlash(rel))
		}
		return nil
	})
}

func lines(t *testing.T, path string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, path))
	require.NoError(t, err)
	return bytes.Count(b, []byte("\n"))
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, path))
	require.NoError(t, err)
	return string(b)
}
