package ground_test

import (
	"errors"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ground"
)

// tree is a file system in memory; a name in open may be written by others.
type tree struct {
	files map[string]string
	open  map[string]bool
}

func (t tree) Read(name string) ([]byte, error) {
	if text, ok := t.files[name]; ok {
		return []byte(text), nil
	}
	return nil, fs.ErrNotExist
}

func (t tree) Glob(pattern string) ([]string, error) {
	var found []string
	for name := range t.files {
		if ok, err := path.Match(pattern, name); err != nil {
			return nil, err
		} else if ok {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return found, nil
}

func (t tree) Secure(name string) error {
	if t.open[name] {
		return errors.New(name + ": mode 0666")
	}
	return nil
}

const (
	conf = "/etc/slurm/plugstack.conf"
	so   = "/usr/lib64/slurm/enclave.so"
)

func dirs() ground.PluginDirs {
	return ground.PluginDirs{Dirs: []string{"/opt/slurm/plugins", "/usr/lib64/slurm"}}
}

func TestFindPlugin(t *testing.T) {
	find := func(t *testing.T, files map[string]string, open ...string) (ground.Plugin, *enclave.Refusal) {
		t.Helper()
		fake := tree{files: map[string]string{so: "ELF"}, open: map[string]bool{}}
		maps.Copy(fake.files, files)
		for _, name := range open {
			fake.open[name] = true
		}
		return ground.FindPlugin(fake, conf, dirs(), "enclave.so")
	}
	good := map[string]map[string]string{
		"by name":                       {conf: "required enclave.so a=b\n"},
		"by path":                       {conf: "required\t" + so + "   a=b # the gate\n"},
		"without a newline at the end":  {conf: "required enclave.so a=b"},
		"after a plugin of the site's":  {conf: "optional pyxis.so\nrequired other.so\nrequired enclave.so a=b\n"},
		"after a line that is passed":   {conf: "REQUIRED enclave.so x\nrequire enclave.so\nrequired\nrequired enclave.so a=b\n"},
		"as optional as well":           {conf: "optional enclave.so\nrequired enclave.so a=b\n"},
		"in an included file":           {conf: "include /etc/slurm/x.conf\n", "/etc/slurm/x.conf": "required enclave.so a=b\n"},
		"in a file beside it":           {conf: "include plugstack.conf.d/*.conf\n", "/etc/slurm/plugstack.conf.d/enclave.conf": "required enclave.so a=b\n"},
		"in a file of an included file": {conf: "include a/1\n", "/etc/slurm/a/1": "include b/2", "/etc/slurm/a/b/2": "required enclave.so a=b\n"},
	}
	for name, files := range good {
		t.Run("found "+name, func(t *testing.T) {
			p, refusal := find(t, files)
			require.Nil(t, refusal)
			assert.Equal(t, so, p.Path)
			assert.Equal(t, []string{"a=b"}, p.Args)
		})
	}
	t.Run("the place of the line is told", func(t *testing.T) {
		p, refusal := find(t, good["in a file beside it"])
		require.Nil(t, refusal)
		assert.Equal(t, "/etc/slurm/plugstack.conf.d/enclave.conf:1", p.From)
	})
	bad := map[string]struct {
		files map[string]string
		open  []string
		code  enclave.Code
	}{
		"no plugstack.conf":                  {nil, nil, ground.CodeNoGate},
		"an empty one":                       {map[string]string{conf: ""}, nil, ground.CodeNoGate},
		"the line in a comment":              {map[string]string{conf: "# required enclave.so\n"}, nil, ground.CodeNoGate},
		"a comment in the middle of it":      {map[string]string{conf: "required #enclave.so\n"}, nil, ground.CodeNoGate},
		"another plugin of a similar name":   {map[string]string{conf: "required myenclave.so\nrequired enclave.so.bak\n"}, nil, ground.CodeNoGate},
		"Windows' line ends":                 {map[string]string{conf: "required enclave.so\r\n"}, nil, ground.CodeNoGate},
		"an include without a match":         {map[string]string{conf: "include plugstack.conf.d/*\n"}, nil, ground.CodeNoGate},
		"optional":                           {map[string]string{conf: "optional enclave.so\n"}, nil, ground.CodeOptional},
		"a configuration others write":       {map[string]string{conf: "required enclave.so\n"}, []string{conf}, ground.CodeWritable},
		"an included file others write":      {map[string]string{conf: "required enclave.so\ninclude x", "/etc/slurm/x": ""}, []string{"/etc/slurm/x"}, ground.CodeWritable},
		"a circle of includes":               {map[string]string{conf: "include plugstack.conf\n"}, nil, ground.CodeUnread},
		"a NUL":                              {map[string]string{conf: "required enclave.so\x00\n"}, nil, ground.CodeUnread},
		"a line that slurmd would cut":       {map[string]string{conf: strings.Repeat(" ", 4090) + "required enclave.so\n"}, nil, ground.CodeUnread},
		"a pattern with brackets":            {map[string]string{conf: "include plugstack.conf.d/[!x]*\nrequired enclave.so\n"}, nil, ground.CodeUnread},
		"a plugin that is not there":         {map[string]string{conf: "required /opt/enclave.so\n"}, nil, ground.CodeNoPlugin},
		"a plugin not in the plugin dirs":    {map[string]string{conf: "required sub/enclave.so\n"}, nil, ground.CodeNoPlugin},
		"a plugin others write":              {map[string]string{conf: "required enclave.so\n"}, []string{so}, ground.CodePlugin},
		"another plugin first in PluginDir":  {map[string]string{conf: "required enclave.so\n", "/opt/slurm/plugins/enclave.so": "evil"}, []string{"/opt/slurm/plugins/enclave.so"}, ground.CodePlugin},
		"a path below one that others write": {map[string]string{conf: "required /tmp/enclave.so\n", "/tmp/enclave.so": "evil"}, []string{"/tmp/enclave.so"}, ground.CodePlugin},
	}
	for name, c := range bad {
		t.Run("refused: "+name, func(t *testing.T) {
			_, refusal := find(t, c.files, c.open...)
			require.NotNil(t, refusal)
			assert.Equal(t, c.code, refusal.Code, refusal.Error())
			assert.Equal(t, enclave.FaultNode, refusal.Fault)
			assert.NotEmpty(t, refusal.Fix)
		})
	}
	t.Run("where PluginDir is guessed, two candidates are one too many", func(t *testing.T) {
		fake := tree{files: map[string]string{so: "a", "/opt/slurm/plugins/enclave.so": "b", conf: "required enclave.so"}}
		guess := dirs()
		guess.Guessed = true
		_, refusal := ground.FindPlugin(fake, conf, guess, "enclave.so")
		require.NotNil(t, refusal)
		assert.Equal(t, ground.CodeNoPlugin, refusal.Code)
	})
}

func TestReadSettings(t *testing.T) {
	const slurm = "/etc/slurm/slurm.conf"
	read := func(t *testing.T, files map[string]string) ground.Settings {
		t.Helper()
		s, refusal := ground.ReadSettings(tree{files: files}, slurm)
		require.Nil(t, refusal)
		return s
	}
	t.Run("without a word the defaults count", func(t *testing.T) {
		s := read(t, map[string]string{slurm: "ClusterName=c\n"})
		assert.Equal(t, conf, s.Plugstack)
		assert.True(t, s.Plugins.Guessed)
	})
	t.Run("what slurm.conf says counts, the later more", func(t *testing.T) {
		s := read(t, map[string]string{
			slurm:                  "plugindir=/a:/b # ours\nPlugStackConfig=/x\\\n/y.conf\ninclude more.conf\n#PluginDir=/z\n",
			"/etc/slurm/more.conf": "PlugStackConfig = \"/opt/p.conf\"\n",
		})
		assert.Equal(t, ground.Settings{Plugstack: "/opt/p.conf", Plugins: ground.PluginDirs{Dirs: []string{"/a", "/b"}}}, s)
	})
	t.Run("no slurm.conf is a configless node", func(t *testing.T) {
		assert.Equal(t, conf, read(t, nil).Plugstack)
	})
	for name, text := range map[string]string{"a circle": "include slurm.conf", "a name with %": "include %c.conf"} {
		t.Run(name+" is refused", func(t *testing.T) {
			_, refusal := ground.ReadSettings(tree{files: map[string]string{slurm: text}}, slurm)
			require.NotNil(t, refusal)
			assert.Equal(t, ground.CodeUnread, refusal.Code)
		})
	}
}

func FuzzParsePlugstack(f *testing.F) {
	f.Add([]byte("required enclave.so a=b # c\ninclude x/*.conf\noptional y\n"))
	f.Add([]byte("required\tenclave.so\r\n\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, err := ground.ParsePlugstack(b)
		if err != nil {
			require.Empty(t, entries)
			return
		}
		for _, e := range entries {
			require.NotEmpty(t, e.Path)
			require.NotContains(t, e.Path, "#")
			again, err := ground.ParsePlugstack([]byte(strings.Join(append([]string{e.Kind, e.Path}, e.Args...), " ")))
			require.NoError(t, err)
			require.Len(t, again, 1)
			require.Equal(t, e.Path, again[0].Path)
		}
	})
}

func FuzzReadSettings(f *testing.F) {
	f.Add("PluginDir=/a:/b\nPlugStackConfig=/x\\\n#")
	f.Add("include slurm.conf")
	f.Fuzz(func(t *testing.T, text string) {
		s, refusal := ground.ReadSettings(tree{files: map[string]string{"/s": text}}, "/s")
		if refusal == nil {
			require.NotEmpty(t, s.Plugstack)
			require.NotEmpty(t, s.Plugins.Dirs)
		}
	})
}
