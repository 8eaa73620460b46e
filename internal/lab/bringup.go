package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/host/machine"
)

func (s *supervisor) bringUp(ctx context.Context) error {
	if err := s.each(func(c *computer) error { return s.startMunge(ctx, c) }); err != nil {
		return err
	}
	n0 := s.computers["n0"]
	if err := s.startDatabase(ctx, n0); err != nil {
		return err
	}
	if err := s.startController(ctx, n0); err != nil {
		return err
	}
	if err := s.startRest(ctx, n0); err != nil {
		return err
	}
	if err := s.startVerifier(ctx, n0); err != nil {
		return err
	}
	err := s.each(func(c *computer) error {
		switch c.Role {
		case RoleEnclave:
			return s.startNode(ctx, c)
		case RolePlain:
			return s.startSlurmd(ctx, c)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return n0.until(ctx, machine.Program{Argv: []string{"sinfo", "-h", "-N", "-o", "%T"}}, allIdle)
}

// startSlurmd leaves it to slurmd to find out by NodeHostname which node it is, as on a site's hosts.
func (s *supervisor) startSlurmd(ctx context.Context, c *computer) error {
	return c.start(ctx, "slurmd", "", "slurmd", "-D")
}

func allIdle(out string) bool {
	for state := range strings.FieldsSeq(out) {
		if state != "idle" {
			return false
		}
	}
	return out != ""
}

func always(string) bool { return true }

func (s *supervisor) startMunge(ctx context.Context, c *computer) error {
	for _, dir := range []string{"/run/munge", "/var/lib/munge", "/var/log/munge"} {
		p := machine.Program{Argv: []string{"install", "-d", "-o", "munge", "-g", "munge", "-m", "0755", dir}}
		if _, err := c.run(ctx, p); err != nil {
			return err
		}
	}
	if err := c.start(ctx, "munged", "munge", "munged", "--foreground"); err != nil {
		return err
	}
	return c.until(ctx, machine.Program{Argv: []string{"munge", "-n"}}, always)
}

const database = "/var/lib/enclave-lab-database"

func (s *supervisor) startDatabase(ctx context.Context, n0 *computer) error {
	steps := [][]string{
		{"install", "-d", "-o", "mysql", "-g", "mysql", "/run/mysqld", database},
		{
			"mariadb-install-db", "--no-defaults", "--user=mysql", "--datadir=" + database, "--skip-test-db",
			"--auth-root-authentication-method=normal", "--innodb-log-file-size=8M",
		},
	}
	for _, argv := range steps {
		if _, err := n0.run(ctx, machine.Program{Argv: argv}); err != nil {
			return err
		}
	}
	const socket = "--socket=/run/mysqld/mysqld.sock"
	err := n0.start(ctx, "mariadbd", "mysql", "mariadbd", "--no-defaults", "--datadir="+database, socket,
		"--skip-networking", "--skip-log-bin", "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=8M",
		"--innodb-flush-log-at-trx-commit=0", "--innodb-lock-wait-timeout=900", "--performance-schema=OFF")
	if err != nil {
		return err
	}
	client := []string{"mariadb", "--no-defaults", socket, "--user=root"}
	if err = n0.until(ctx, machine.Program{Argv: append(client, "--execute=SELECT 1")}, always); err != nil {
		return err
	}
	// slurmdbd would make the database itself, but connects twice with one handle then, which MariaDB's
	// client library of 11.8.9 does not survive [tried].
	_, err = n0.run(ctx, machine.Program{
		Argv:  client,
		Input: "CREATE DATABASE slurm_acct_db; CREATE USER 'slurm'@'localhost' IDENTIFIED BY 'lab'; GRANT ALL ON slurm_acct_db.* TO 'slurm'@'localhost';\n",
	})
	return err
}

func (s *supervisor) startController(ctx context.Context, n0 *computer) error {
	p := machine.Program{Argv: []string{"install", "-d", "-o", "slurm", "-g", "slurm", "/var/spool/slurmctld"}}
	if _, err := n0.run(ctx, p); err != nil {
		return err
	}
	if err := s.tokenKey(ctx, n0); err != nil {
		return err
	}
	if err := n0.start(ctx, "slurmdbd", "slurm", "slurmdbd", "-D"); err != nil {
		return err
	}
	if err := n0.until(ctx, machine.Program{Argv: []string{"sacctmgr", "-n", "list", "cluster"}}, always); err != nil {
		return err
	}
	for _, words := range accounting() {
		if _, err := n0.run(ctx, machine.Program{Argv: append([]string{"sacctmgr", "-i"}, words...)}); err != nil {
			return err
		}
	}
	// A slurmctld that is killed early has saved little; 26.05 does not start on that without -i.
	if err := n0.start(ctx, "slurmctld", "slurm", "slurmctld", "-D", "-i"); err != nil {
		return err
	}
	return n0.until(ctx, machine.Program{Argv: []string{"scontrol", "ping"}}, func(out string) bool {
		return strings.Contains(out, " is UP")
	})
}

// accounting is what sacctmgr is told: one account a user, and carol may use alice's as well,
// so that an account's tenant, not the user, is what decides.
func accounting() [][]string {
	steps := [][]string{{"add", "cluster", "lab"}}
	for _, u := range Users() {
		steps = append(steps,
			[]string{"add", "account", u.Account, "cluster=lab", "description=" + u.Account, "organization=lab"},
			[]string{"add", "user", u.Name, "account=" + u.Account, "cluster=lab"})
	}
	return append(steps,
		[]string{"add", "account", "enclave", "cluster=lab", "description=enclave", "organization=lab"},
		[]string{"add", "user", enclaveUser, "account=enclave", "cluster=lab", "adminlevel=Administrator"})
}

// install puts the project's programs into the layer, as `make install` puts them on a site's
// hosts.
func (s *supervisor) install() error {
	layer := filepath.Join(s.root, "layer")
	for _, dir := range []string{"usr/libexec/slurm-enclave", "usr/bin", "usr/sbin", filepath.Dir(pluginPath)} {
		if err := os.MkdirAll(filepath.Join(layer, dir), 0o755); err != nil {
			return err
		}
	}
	// Root's alone: what lies below it is the whole file system, all tenants'.
	if err := os.MkdirAll(filepath.Join(layer, siteParent), 0o755); err != nil {
		return err
	}
	if err := os.Chmod(filepath.Join(layer, siteParent), 0o700); err != nil {
		return err
	}
	for name, to := range products() {
		b, err := os.ReadFile(from(s.spec, s.programs, name))
		if err != nil {
			return fmt.Errorf("install %s: %w (make build)", name, err)
		}
		if err := os.WriteFile(filepath.Join(layer, to), b, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// products maps what `make build` makes to where it is installed.
func products() map[string]string {
	const libexec = "usr/libexec/slurm-enclave/"
	return map[string]string{
		"enclave": "usr/bin/enclave", "enclaved": "usr/sbin/enclaved", "enclave-tsm": "usr/sbin/enclave-tsm",
		"enclave-prolog": libexec + "enclave-prolog", "enclave-epilog": libexec + "enclave-epilog",
		"enclave-keeper": libexec + "enclave-keeper", "enclave-view": libexec + "enclave-view", "libenclave-submit.so": libexec + "libenclave-submit.so",
		"enclave.so": strings.TrimPrefix(pluginPath, "/"),
	}
}
