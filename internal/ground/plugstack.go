package ground

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Files is the file system as far as slurmd's configuration goes. Read gives fs.ErrNotExist for a
// file that is not there. Glob is glob(3) without flags: no match is no error. Secure is nil when
// nobody but root could have chosen what a path leads to.
type Files interface {
	Read(name string) ([]byte, error)
	Glob(pattern string) ([]string, error)
	Secure(name string) error
}

// Entry is one line of plugstack.conf that slurmd acts on.
type Entry struct {
	Line int
	Kind string // required, optional or include
	Path string
	Args []string
}

// The three kinds of lines. Slurm compares them as they are, in lower case.
const (
	Required = "required"
	Optional = "optional"
	Include  = "include"
)

const (
	lineLimit    = 4094 // slurmd reads lines into 4096 bytes and takes the rest for a line of its own
	includeLimit = 16
)

// ParsePlugstack reads a plugstack.conf as slurmd does: words are separated by space and tab
// alone, a hash ends the line wherever it stands, and a line that begins with another word, or
// names nothing, is passed over. What slurmd would read in another way than its author meant, a
// line that is too long or a NUL, is an error.
func ParsePlugstack(b []byte) ([]Entry, error) {
	if bytes.IndexByte(b, 0) >= 0 {
		return nil, errors.New("it holds a NUL")
	}
	var entries []Entry
	for i, line := range strings.Split(string(b), "\n") {
		if len(line) > lineLimit {
			return nil, fmt.Errorf("line %d is longer than %d bytes", i+1, lineLimit)
		}
		line, _, _ = strings.Cut(line, "#")
		words := strings.FieldsFunc(line, func(c rune) bool { return c == ' ' || c == '\t' })
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case Required, Optional, Include:
			entries = append(entries, Entry{Line: i + 1, Kind: words[0], Path: words[1], Args: words[2:]})
		}
	}
	return entries, nil
}

// Plugin is where slurmd finds the gate.
type Plugin struct {
	Path string
	Args []string
	From string // "FILE:LINE"
}

// FindPlugin follows plugstack.conf and what it includes to the first line that requires a plugin
// with this file name, and gives the file that slurmd would load for it. Every file on the way
// must be root's alone: whoever writes one of them runs as root in slurmd.
func FindPlugin(files Files, conf string, plugins PluginDirs, name string) (Plugin, *enclave.Refusal) {
	w := walk{files: files, plugins: plugins, name: name}
	if refusal := w.file(conf, 0); refusal != nil {
		return Plugin{}, refusal
	}
	switch {
	case w.found != nil:
		return w.resolve(*w.found)
	case w.optional != "":
		return Plugin{}, broken(CodeOptional, "plugstack", "write required before it",
			"%s loads %s as optional: tasks would start without the gate when it cannot be loaded", w.optional, name)
	}
	return Plugin{}, broken(CodeNoGate, "plugstack", "add the line: required "+name,
		"%s and what it includes do not load %s", conf, name)
}

type walk struct {
	files    Files
	plugins  PluginDirs
	name     string
	found    *Plugin
	optional string
}

func (w *walk) file(name string, depth int) *enclave.Refusal {
	if depth > includeLimit {
		return broken(CodeUnread, "plugstack", "remove the circle of include lines", "%s: more than %d includes in each other", name, includeLimit)
	}
	b, err := w.files.Read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // slurmd takes a missing file for an empty one
	}
	if err != nil {
		return broken(CodeUnread, "plugstack", "make it a readable file", "%s: %v", name, err)
	}
	if err = w.files.Secure(name); err != nil {
		return broken(CodeWritable, "plugstack", "make it and its directories root's, writable by root alone", "%s: %v", name, err)
	}
	entries, err := ParsePlugstack(b)
	if err != nil {
		return broken(CodeUnread, "plugstack", "correct it", "%s: %v", name, err)
	}
	for _, e := range entries {
		at := fmt.Sprintf("%s:%d", name, e.Line)
		switch {
		case e.Kind == Include:
			if refusal := w.include(name, at, e.Path, depth); refusal != nil {
				return refusal
			}
		case path.Base(e.Path) != w.name:
		case e.Kind == Optional:
			w.optional = at
		case w.found == nil:
			w.found = &Plugin{Path: e.Path, Args: e.Args, From: at}
		}
	}
	return nil
}

func (w *walk) include(name, at, pattern string, depth int) *enclave.Refusal {
	if strings.ContainsAny(pattern, `[\`) {
		return broken(CodeUnread, "plugstack", "name the files, or use * and ? alone", "%s: include %s", at, pattern)
	}
	if !path.IsAbs(pattern) {
		pattern = path.Dir(name) + "/" + pattern
	}
	matches, err := w.files.Glob(pattern)
	if err != nil {
		return broken(CodeUnread, "plugstack", "correct it", "%s: include %s: %v", at, pattern, err)
	}
	for _, m := range matches {
		if refusal := w.file(m, depth+1); refusal != nil {
			return refusal
		}
	}
	return nil
}

// resolve finds the file of a plugin as slurmd does: a bare name in the first directory of
// PluginDir that holds it.
func (w *walk) resolve(p Plugin) (Plugin, *enclave.Refusal) {
	if !path.IsAbs(p.Path) {
		var there []string
		for _, dir := range w.plugins.Dirs {
			file := path.Join(dir, p.Path)
			if _, err := w.files.Read(file); err == nil {
				there = append(there, file)
			} else if !errors.Is(err, fs.ErrNotExist) {
				return Plugin{}, broken(CodeNoPlugin, "plugstack", "make it a readable file", "%s: %v", file, err)
			}
		}
		if len(there) == 0 || len(there) > 1 && w.plugins.Guessed {
			return Plugin{}, broken(CodeNoPlugin, "plugstack", "write the plugin's absolute path, or PluginDir in slurm.conf",
				"%s: %s is found %d times in %s", p.From, p.Path, len(there), strings.Join(w.plugins.Dirs, ":"))
		}
		p.Path = there[0]
	}
	if _, err := w.files.Read(p.Path); err != nil {
		return Plugin{}, broken(CodeNoPlugin, "plugstack", "install the plugin there", "%s: %s: %v", p.From, p.Path, err)
	}
	if err := w.files.Secure(p.Path); err != nil {
		return Plugin{}, broken(CodePlugin, "plugstack", "make it and its directories root's, writable by root alone", "%s: %v", p.Path, err)
	}
	return p, nil
}
