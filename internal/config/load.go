package config

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// maxFile bounds a configuration file; inventories of 10 000 nodes fit.
const maxFile = 4 << 20

// Load reads enclave.yaml over the defaults and checks it.
func Load(r io.Reader) (Config, error) {
	c := Default()
	if err := Strict(r, &c); err != nil {
		return Config{}, fmt.Errorf("read enclave.yaml: %w", err)
	}
	if err := c.check(); err != nil {
		return Config{}, fmt.Errorf("check enclave.yaml: %w", err)
	}
	return c, nil
}

// LoadInventory reads inventory.yaml and checks it.
func LoadInventory(r io.Reader) (Inventory, error) {
	var text inventoryText
	if err := Strict(r, &text); err != nil {
		return Inventory{}, fmt.Errorf("read inventory.yaml: %w", err)
	}
	i, err := text.inventory()
	if err != nil {
		return Inventory{}, fmt.Errorf("read inventory.yaml: %w", err)
	}
	if err := i.check(); err != nil {
		return Inventory{}, fmt.Errorf("check inventory.yaml: %w", err)
	}
	return i, nil
}

// inventoryText is an Inventory whose addresses are words: go-yaml 1.19.2 walks the whole document
// for each value that unmarshals itself, which takes minutes for some thousand nodes.
type inventoryText struct {
	Nodes []nodeText `yaml:"nodes"`
}

type nodeText struct {
	Name      string   `yaml:"name"`
	Addresses []string `yaml:"addresses"`
	Tunnel    string   `yaml:"tunnel"`
}

func (t inventoryText) inventory() (Inventory, error) {
	out := Inventory{Nodes: make([]enclave.Node, len(t.Nodes))}
	for k, line := range t.Nodes {
		n := enclave.Node{Name: line.Name, Addresses: make([]netip.Addr, len(line.Addresses))}
		for j, word := range line.Addresses {
			if err := n.Addresses[j].UnmarshalText([]byte(word)); err != nil {
				return Inventory{}, fmt.Errorf("node %s: addresses: %w", line.Name, err)
			}
		}
		if err := n.Tunnel.UnmarshalText([]byte(line.Tunnel)); err != nil {
			return Inventory{}, fmt.Errorf("node %s: tunnel: %w", line.Name, err)
		}
		out.Nodes[k] = n
	}
	return out, nil
}

// Strict decodes exactly one YAML document. An unknown or repeated key is an error; the error of an
// unknown key names its line and the nearest key of v's type. After an error v may be half filled.
//
// A panic of the library's is an error, too: go-yaml 1.19.2 dereferences nil where a tag without a
// value stands for a list ("visible: !x"), and a typing error must not end a daemon.
func Strict(r io.Reader, v any) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("not YAML that can be decoded: %v", p)
		}
	}()
	return strict(r, v)
}

func strict(r io.Reader, v any) error {
	b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return err
	}
	if len(b) > maxFile {
		return fmt.Errorf("over %d bytes", maxFile)
	}
	d := yaml.NewDecoder(strings.NewReader(string(b)), yaml.Strict())
	if err = d.Decode(v); err != nil {
		return explain(err, v)
	}
	var more any
	if err = d.Decode(&more); !errors.Is(err, io.EOF) {
		return errors.New("more than one document")
	}
	return nil
}

// explain makes one line of the library's many.
func explain(err error, v any) error {
	if errors.Is(err, io.EOF) {
		return errors.New("file is empty")
	}
	if unknown, ok := errors.AsType[*yaml.UnknownFieldError](err); ok && unknown.Token != nil {
		key := strings.TrimSuffix(strings.TrimPrefix(unknown.Message, `unknown field "`), `"`)
		near := nearest(key, keys(reflect.TypeOf(v), nil))
		if near != "" {
			near = fmt.Sprintf(", did you mean %q", near)
		}
		return fmt.Errorf("line %d: unknown key %q%s", unknown.Token.Position.Line, key, near)
	}
	if e, ok := errors.AsType[yaml.Error](err); ok {
		if t := e.GetToken(); t != nil {
			return fmt.Errorf("line %d: %s", t.Position.Line, e.GetMessage())
		}
		return errors.New(e.GetMessage())
	}
	return err
}

// keys lists every yaml key of a type, however deep.
func keys(t reflect.Type, out []string) []string {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		return keys(t.Elem(), out)
	case reflect.Map:
		return keys(t.Elem(), out)
	case reflect.Struct:
	default:
		return out
	}
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name != "" && name != "-" {
			out = keys(f.Type, append(out, name))
		}
	}
	return out
}

// nearest is the key at the smallest edit distance, or "" when none is near.
func nearest(key string, known []string) string {
	best, at := "", 1+len(key)/2
	for _, k := range known {
		if d := distance(key, k); d < at {
			best, at = k, d
		}
	}
	return best
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
