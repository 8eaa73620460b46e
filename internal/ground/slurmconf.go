package ground

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// PluginDirs is where slurmd looks for plugins that have no path.
type PluginDirs struct {
	Dirs    []string
	Guessed bool // slurm.conf does not say: these are where distributions put them
}

// DefaultPluginDirs are the places of plugins in Debian, Red Hat and Slurm's own build.
func DefaultPluginDirs() PluginDirs {
	return PluginDirs{Guessed: true, Dirs: []string{
		"/usr/lib/x86_64-linux-gnu/slurm-wlm", "/usr/lib64/slurm", "/usr/lib/slurm", "/usr/local/lib/slurm",
	}}
}

// Settings are the two settings of slurm.conf that say where slurmd finds the gate.
type Settings struct {
	Plugstack string
	Plugins   PluginDirs
}

// ReadSettings follows slurm.conf and what it includes. Of a setting that stands twice the later
// counts, as for slurmd. Without slurm.conf (a configless node keeps it elsewhere) the settings
// are the defaults beside the given path.
func ReadSettings(files Files, conf string) (Settings, *enclave.Refusal) {
	s := Settings{Plugstack: path.Join(path.Dir(conf), "plugstack.conf"), Plugins: DefaultPluginDirs()}
	values, refusal := ReadValues(files, conf)
	if refusal != nil {
		return Settings{}, refusal
	}
	if v := values["plugstackconfig"]; v != "" {
		s.Plugstack = v
	}
	if v := values["plugindir"]; v != "" {
		s.Plugins = PluginDirs{Dirs: strings.Split(v, ":")}
	}
	return s, nil
}

// ReadValues gives the settings of slurm.conf and what it includes, names in lower case, each
// value up to its first space. Of a line of several (NodeName=..., PartitionName=...) it has the
// first alone. One that is set to nothing counts as not set there.
func ReadValues(files Files, conf string) (map[string]string, *enclave.Refusal) {
	values := map[string]string{}
	if err := readValues(values, files, conf, path.Dir(conf), 0); err != nil {
		return nil, broken(CodeUnread, "plugstack", "correct slurm.conf", "%v", err)
	}
	return values, nil
}

func readValues(values map[string]string, files Files, name, dir string, depth int) error {
	if depth > includeLimit {
		return fmt.Errorf("%s: more than %d includes in each other", name, includeLimit)
	}
	b, err := files.Read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, line := range logicalLines(string(b)) {
		line = strings.TrimSpace(line)
		if words := strings.Fields(line); len(words) == 2 && strings.EqualFold(words[0], Include) {
			next := words[1]
			if strings.Contains(next, "%") {
				return fmt.Errorf("%s: include %s: names with %% are not read", name, next)
			}
			if !path.IsAbs(next) {
				next = path.Join(dir, next)
			}
			if err := readValues(values, files, next, dir, depth+1); err != nil {
				return err
			}
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			continue
		}
		value, _, _ = strings.Cut(strings.TrimSpace(value), " ")
		if value = strings.Trim(value, `"`); value != "" {
			values[strings.ToLower(strings.TrimSpace(key))] = value
		}
	}
	return nil
}

// logicalLines takes comments out and joins lines that end in a backslash. A hash after a
// backslash is part of a value.
func logicalLines(text string) []string {
	var lines []string
	joined := ""
	for line := range strings.SplitSeq(text, "\n") {
		for i := 0; i < len(line); i++ {
			if line[i] == '#' && (i == 0 || line[i-1] != '\\') {
				line = line[:i]
				break
			}
		}
		line = strings.TrimRight(line, " \t\r")
		if rest, ok := strings.CutSuffix(line, `\`); ok {
			joined += rest
			continue
		}
		lines = append(lines, joined+line)
		joined = ""
	}
	return append(lines, joined)
}
