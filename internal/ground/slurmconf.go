package ground

import (
	"path"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/slurmconf"
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

// ReadValues gives the cluster's settings of slurm.conf and what it includes, names in lower case.
// One that is set to nothing counts as not set there.
func ReadValues(files Files, conf string) (map[string]string, *enclave.Refusal) {
	c, err := slurmconf.Read(files, conf)
	if err != nil {
		return nil, broken(CodeUnread, "plugstack", "correct slurm.conf", "%v", err)
	}
	return c.Values(), nil
}
