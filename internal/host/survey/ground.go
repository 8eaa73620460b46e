// Package survey reads from this machine the facts that internal/ground and internal/closed judge.
// It decides nothing and changes nothing but the record of the closed state.
package survey

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/gate"
	"github.com/slurm-enclave/slurm-enclave/internal/ground"
	"github.com/slurm-enclave/slurm-enclave/internal/host/file"
	"github.com/slurm-enclave/slurm-enclave/internal/host/process"
)

const (
	fileLimit  = 16 << 20 // slurm.conf of a large site, or a plugin
	pluginName = "enclave.so"
)

// Configuration is slurmd's configuration on this machine.
type Configuration struct {
	Trust file.Trust
}

// Read reads a file. Whether it can be trusted is Secure's to say.
func (Configuration) Read(name string) ([]byte, error) { return file.Read(name, fileLimit) }

// Secure is nil when nobody but root could have chosen what the path leads to.
func (c Configuration) Secure(name string) error { return c.Trust.Secure(name) }

// Hidden is nil for a directory that is root's, and that nobody else may enter.
func (c Configuration) Hidden(name string) error {
	info, err := os.Lstat(name)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || st.Uid != c.Trust.Owner || st.Mode&0o7777 != 0o700 {
		return fmt.Errorf("%s is not a directory of root's with mode 0700 (%s)", name, info.Mode())
	}
	return nil
}

// Glob is glob(3) for patterns of * and ?: a wildcard at the beginning of a name does not match
// a dot, which it does in Go.
func (Configuration) Glob(pattern string) ([]string, error) {
	matches, err := filepath.Glob(pattern)
	if err != nil {
		return nil, fmt.Errorf("match %s: %w", pattern, err)
	}
	wanted := strings.Split(filepath.Clean(pattern), "/")
	var found []string
	for _, m := range matches {
		hidden := false
		for i, part := range strings.Split(m, "/") {
			if strings.HasPrefix(part, ".") && i < len(wanted) && !strings.HasPrefix(wanted[i], ".") {
				hidden = true
			}
		}
		if !hidden {
			found = append(found, m)
		}
	}
	return found, nil
}

// Marked says whether this is an enclave node, as the plugin does: only a name that is not there
// says no. The refusal is of a marker that others could have put there.
func (c Configuration) Marked(marker string) (bool, *enclave.Refusal) {
	if _, err := os.Lstat(marker); errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return false, nil
	}
	return true, ground.Marker(c.Trust.Secure(marker))
}

// Gate says whether slurmd loads the gate of this release. slurmConf is $SLURM_CONF; without it
// plugstack is where the site's configuration says.
func (c Configuration) Gate(slurmConf, plugstack, release string) *enclave.Refusal {
	settings := ground.Settings{Plugstack: plugstack, Plugins: ground.DefaultPluginDirs()}
	if slurmConf != "" {
		read, refusal := ground.ReadSettings(c, slurmConf)
		if refusal != nil {
			return refusal
		}
		settings = read
	}
	plugin, refusal := ground.FindPlugin(c, settings.Plugstack, settings.Plugins, pluginName)
	if refusal != nil {
		return refusal
	}
	b, err := c.Read(plugin.Path)
	theirs := ""
	if err == nil {
		theirs, err = ground.ReadRelease(bytes.NewReader(b))
	}
	if err != nil {
		r := ground.SameRelease(plugin, "", release)
		r.Reason += ": " + err.Error()
		return r
	}
	return ground.SameRelease(plugin, theirs, release)
}

// Container says whether Slurm gives each job on this node a mount namespace and runs script in it. Without
// $SLURM_CONF the files are looked for beside plugstack.conf.
func (c Configuration) Container(slurmConf, plugstack, script, node string) *enclave.Refusal {
	if slurmConf == "" {
		slurmConf = filepath.Join(filepath.Dir(plugstack), "slurm.conf")
	}
	return ground.Container(c, slurmConf, script, []string{node})
}

// Spool is SlurmdSpoolDir, without symlinks on the way. Without $SLURM_CONF slurm.conf is looked for beside
// plugstack.conf; node is "" where it is not known.
func (c Configuration) Spool(slurmConf, plugstack, node string) (string, error) {
	if slurmConf == "" {
		slurmConf = filepath.Join(filepath.Dir(plugstack), "slurm.conf")
	}
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("find SlurmdSpoolDir: %w", err)
	}
	dir, refusal := ground.SpoolDirectory(c, slurmConf, node, host)
	if refusal != nil {
		return "", fmt.Errorf("find SlurmdSpoolDir: %w", refusal)
	}
	if resolved, err := filepath.EvalSymlinks(dir); err == nil {
		return resolved, nil
	}
	return dir, nil // not made yet
}

// Facts reads what is on the node when a job is to begin. The ids in allow, and those of daemons,
// may have processes on a node; of other ids from least on nobody may.
func Facts(job enclave.JobKey, base string, least uint32, allow []enclave.UIDRange) (ground.Facts, error) {
	journals, err := ground.Journals(base, job.Cluster)
	if err != nil {
		return ground.Facts{}, err
	}
	list, err := process.List()
	if err != nil {
		return ground.Facts{}, err
	}
	var roots []ground.Process
	for _, p := range list {
		if p.UID == 0 {
			roots = append(roots, ground.Process{PID: p.PID, UID: p.UID, Title: process.Title(p.PID)})
		}
	}
	live := ground.LiveJobs(roots)
	for _, kept := range ground.KeptJobs(roots) {
		if (gate.Directory{Path: filepath.Join(base, "gate")}).Admitted(kept) && !slices.Contains(live, kept) {
			live = append(live, kept)
		}
	}
	return ground.Facts{Job: job, Journals: journals, Live: live, Foreign: foreign(list, least, allow)}, nil
}

// Foreign lists the processes that Facts calls foreign, to look again after they were to end.
func Foreign(least uint32, allow []enclave.UIDRange) ([]ground.Process, error) {
	list, err := process.List()
	if err != nil {
		return nil, err
	}
	return foreign(list, least, allow), nil
}

func foreign(list []process.Process, least uint32, allow []enclave.UIDRange) []ground.Process {
	var found []ground.Process
	for _, p := range process.Foreign(list, least, append(process.Daemons(), allow...)) {
		found = append(found, ground.Process{PID: p.PID, UID: p.UID, Title: p.Name})
	}
	return found
}
