// Package posture gathers what internal/ladder judges: it reads this machine, tries its kernel,
// asks for one report over random bytes and judges that as the verifier would, as far as roots,
// certificates and policy are on this machine.
//
// It asks nobody on the network, changes nothing that lasts, and proves nothing to anybody else.
// `enclave ok` calls it.
package posture

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ground"
	"github.com/slurm-enclave/slurm-enclave/internal/host/capability"
	"github.com/slurm-enclave/slurm-enclave/internal/host/hardware"
	"github.com/slurm-enclave/slurm-enclave/internal/host/program"
	"github.com/slurm-enclave/slurm-enclave/internal/host/survey"
	"github.com/slurm-enclave/slurm-enclave/internal/ladder"
)

// Machine is this machine and where its parts are.
type Machine struct {
	Config    string // enclave.yaml
	Marker    string // makes a machine an enclave node
	SlurmConf string // $SLURM_CONF; "": the usual places are tried
	Release   string // of these programs
	Attest    func(ctx context.Context, reportData [64]byte) (enclave.Evidence, error)
}

const (
	firmware   = 30 * time.Second // for a report: other guests of the host may be served first
	kernel     = 10 * time.Second // for what is tried of it
	slurmdSays = 5 * time.Second  // for its version
)

// usualConfs are slurm.conf's places: of distributions, of Slurm's own build, of a configless slurmd.
func usualConfs() []string {
	return []string{"/etc/slurm/slurm.conf", "/usr/local/etc/slurm.conf", "/run/slurm/conf/slurm.conf"}
}

// Facts reads and tries. What can't be read is missing in the facts, and the ladder says so.
func (m Machine) Facts(ctx context.Context) ladder.Facts {
	c, err := load(m.Config)
	machine := hardware.Machine{}
	f := ladder.Facts{Root: os.Geteuid() == 0, Processor: machine.Processor()}
	f.Encryption = machine.Encryption(f.Processor)
	if f.Encryption.TSM && f.Root {
		f.Attester = m.attester(ctx, c.Controller)
	}
	f.Kernel = try(ctx)
	f.Slurm = m.slurm(ctx, c)
	if err != nil {
		f.Slurm.ConfigError = err.Error()
	}
	return f
}

// try has a time of its own: firmware that hangs is no fault of the kernel's.
func try(ctx context.Context) ladder.Kernel {
	ctx, cancel := context.WithTimeout(ctx, kernel)
	defer cancel()
	return capability.Try(ctx)
}

// load reads enclave.yaml; without one, or with one that can't be used, the presets hold.
func load(path string) (config.Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return config.Default(), err
	}
	defer func() { _ = f.Close() }() // only read
	c, err := config.Load(f)
	if err != nil {
		return config.Default(), fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

func (m Machine) slurm(ctx context.Context, c config.Config) ladder.Slurm {
	var s ladder.Slurm
	s.Marker, s.MarkerBad = survey.Configuration{}.Marked(m.Marker)
	s.Slurmd, s.Version = slurmd(ctx)
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		s.LocalPorts = strings.TrimSpace(string(b))
	}
	s.Conf = m.conf()
	if s.Conf != "" {
		values, refusal := ground.ReadValues(survey.Configuration{}, s.Conf)
		s.Settings = values
		if refusal != nil {
			s.ConfError = refusal.Reason
		}
	}
	s.Gate = survey.Configuration{}.Gate(s.Conf, c.Slurm.Plugstack, m.Release)
	return s
}

func (m Machine) conf() string {
	if m.SlurmConf != "" {
		return m.SlurmConf
	}
	for _, path := range usualConfs() {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// slurmd says whether there is one, in program.Path or where Slurm's own build puts it.
func slurmd(ctx context.Context) (found bool, version string) {
	ctx, cancel := context.WithTimeout(ctx, slurmdSays)
	defer cancel()
	for _, dir := range append(filepath.SplitList(program.Path), "/usr/local/sbin") {
		path := filepath.Join(dir, "slurmd")
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		out, err := program.Runner{}.Run(ctx, path, "-V")
		if err != nil {
			return true, ""
		}
		return true, strings.TrimSpace(string(out))
	}
	return false, ""
}
