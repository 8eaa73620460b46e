package main

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/cli"
	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/doctor"
	"github.com/slurm-enclave/slurm-enclave/internal/door"
	"github.com/slurm-enclave/slurm-enclave/internal/host/program"
	"github.com/slurm-enclave/slurm-enclave/internal/host/survey"
	"github.com/slurm-enclave/slurm-enclave/internal/slurm"
	"github.com/slurm-enclave/slurm-enclave/internal/slurmconf"
)

const slurmAnswers = 10 * time.Second // how long slurmctld and slurmdbd are asked

// ground reads what doctor judges on this host.
func ground(ctx context.Context, path, slurmConf string) (doctor.Site, bool, error) {
	cfg, _, err := load(path)
	if err != nil {
		return doctor.Site{}, false, err
	}
	files := survey.Configuration{}
	s := doctor.Site{Config: cfg, Files: files}
	conf := confPath(cfg, slurmConf)
	if _, err = files.Read(conf); err == nil {
		s.Conf, err = slurmconf.Read(files, conf)
	}
	if err != nil {
		return doctor.Site{}, false, fmt.Errorf("%w: %w", cli.ErrSlurmConf, err)
	}
	marked, _ := files.Marked(door.Marker) // a marker that is not trusted is the prolog's to refuse
	s.Node = marked
	if host, err := os.Hostname(); err == nil {
		s.Host = host
	}
	ctx, cancel := context.WithTimeout(ctx, slurmAnswers)
	defer cancel()
	commands := slurm.NewCLI(program.Runner{})
	if live, err := commands.Settings(ctx); err == nil { // slurmctld away: nothing to compare
		s.Live = live
	}
	if !marked {
		s.Administrator = level(ctx, commands, cfg.Controller.State)
	}
	return s, marked, nil
}

// confPath is slurm.conf as named, as Slurm's programs find it, or beside plugstack.conf.
func confPath(cfg config.Config, named string) string {
	if named != "" {
		return named
	}
	if env := os.Getenv("SLURM_CONF"); env != "" {
		return env
	}
	return filepath.Join(filepath.Dir(cfg.Slurm.Plugstack), "slurm.conf")
}

// level is the AdminLevel of the owner of enclaved's state, "" when that can't be found out.
func level(ctx context.Context, commands *slurm.CLI, state string) string {
	info, err := os.Stat(state)
	if err != nil {
		return ""
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	u, err := user.LookupId(strconv.FormatUint(uint64(owner.Uid), 10))
	if err != nil {
		return ""
	}
	found, err := commands.AdminLevel(ctx, u.Username)
	if err != nil {
		return ""
	}
	if found == "" {
		return "None"
	}
	return found
}
