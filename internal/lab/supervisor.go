package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/host/machine"
)

// supervisor is the lab's first process: everything else is its descendant and ends with it.
type supervisor struct {
	spec     Spec
	programs string // the folder that holds this project's programs
	root     string // a tmpfs that only the lab's mount namespace has
	base     base
	cgroups  machine.Cgroups
	identity State // who the supervisor is on the machine, as its starter knows it

	mu        sync.Mutex
	computers map[string]*computer
	ready     bool
}

// Supervise builds the lab and holds it until it is killed. started gets the error of the
// build, nil for success; after a failed build Supervise returns.
func Supervise(ctx context.Context, identity State, programs string, started func(error)) error {
	s := &supervisor{
		spec: identity.Spec, programs: programs, identity: identity,
		root: filepath.Join(Directory(), "root"), computers: map[string]*computer{},
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	err := errors.Join(s.listen(context.WithoutCancel(ctx)), s.build(ctx))
	s.mu.Lock()
	s.ready = err == nil
	s.mu.Unlock()
	err = errors.Join(err, s.save())
	started(err)
	if err != nil {
		return err
	}
	reapForever()
	return nil
}

// reapForever is the duty of a PID namespace's first process.
func reapForever() {
	for {
		if _, _, err := machine.Reap(); err != nil {
			time.Sleep(time.Second) //nolint:forbidigo // no child is left to wait for, and nothing else is to be done
		}
	}
}

func (s *supervisor) build(ctx context.Context) error {
	if err := s.ground(ctx); err != nil {
		return err
	}
	for _, h := range s.spec.Hosts() {
		c, err := boot(h, func() { _ = s.save() })
		if err != nil {
			return fmt.Errorf("boot %s: %w", h.Name, err)
		}
		s.mu.Lock()
		s.computers[h.Name] = c
		s.mu.Unlock()
	}
	if err := s.each(func(c *computer) error { return s.configure(ctx, c) }); err != nil {
		return err
	}
	return s.bringUp(ctx)
}

// ground lays what the hosts stand on: the layer of files, the shared folders, the switches.
func (s *supervisor) ground(ctx context.Context) error {
	if err := machine.PrivateMounts(); err != nil {
		return err
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	s.cgroups, _, err = machine.FindCgroups(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = machine.MountTmpfs(s.root, "75%", 0o755); err != nil {
		return err
	}
	if err = machine.MountProc("/proc"); err != nil {
		return err
	}
	if s.base, err = inspect(ctx, basePath(s.spec)); err != nil {
		return err
	}
	if err = s.spec.fits(s.base); err != nil {
		return err
	}
	if err = s.files(); err != nil {
		return err
	}
	if err = s.product(); err != nil {
		return err
	}
	if err = s.install(); err != nil {
		return err
	}
	if err = s.homes(); err != nil {
		return err
	}
	if err = s.fileSystem(ctx); err != nil {
		return err
	}
	if err = machine.Loopback(); err != nil {
		return err
	}
	for _, sw := range switches() {
		if err = machine.Bridge(sw[0]); err != nil {
			return err
		}
	}
	return nil
}

// files writes the layer of all hosts.
func (s *supervisor) files() error {
	passwd, errPasswd := os.ReadFile(filepath.Join(s.base.path, "etc/passwd"))
	group, errGroup := os.ReadFile(filepath.Join(s.base.path, "etc/group"))
	if err := errors.Join(errPasswd, errGroup); err != nil {
		return err
	}
	files, err := layerFiles(s.spec, s.base, s.cgroups != machine.CgroupNone, string(passwd), string(group))
	if err != nil {
		return err
	}
	return writeLayer(filepath.Join(s.root, "layer"), files, string(passwd))
}

func (s *supervisor) homes() error {
	if err := os.MkdirAll(filepath.Join(s.root, "home"), 0o755); err != nil {
		return err
	}
	for _, u := range Users() {
		home := filepath.Join(s.root, "home", u.Name)
		if err := os.Mkdir(home, 0o700); err != nil {
			return err
		}
		if err := os.Chown(home, int(u.UID), int(u.UID)); err != nil {
			return err
		}
	}
	return nil
}

func (s *supervisor) configure(ctx context.Context, c *computer) error {
	plan := hostPlan{
		Name: c.Name, Cards: c.Cards(),
		Root: machine.Root{
			Lower:  []string{filepath.Join(s.root, "layer"), s.base.path},
			Upper:  filepath.Join(s.root, c.Name, "upper"),
			Work:   filepath.Join(s.root, c.Name, "work"),
			Target: filepath.Join(s.root, c.Name, "root"),
			Binds:  []machine.Bind{{From: filepath.Join(s.root, "home"), To: "/home"}},
		},
	}
	if c.Role == RoleEnclave {
		plan.Root.Binds = append(plan.Root.Binds,
			machine.Bind{From: filepath.Join(s.root, "site"), To: siteMount},
			machine.Bind{From: filepath.Join(s.root, "hierarchy"), To: hierarchyDir})
	}
	if s.cgroups == machine.CgroupFreezer {
		plan.Cgroup = filepath.Join(called(), c.Name)
	}
	_, err := c.ask(ctx, request{Configure: &plan})
	return err
}

// each does f for all hosts at the same time.
func (s *supervisor) each(f func(*computer) error) error {
	var wg sync.WaitGroup
	hosts := s.spec.Hosts()
	errs := make([]error, len(hosts))
	for i, h := range hosts {
		wg.Go(func() { errs[i] = f(s.computers[h.Name]) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// save writes what status, exec and down need to find the lab again.
func (s *supervisor) save() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.identity
	state.Ready = s.ready
	for _, h := range s.spec.Hosts() {
		if c, ok := s.computers[h.Name]; ok {
			state.Hosts = append(state.Hosts, c.state())
		}
	}
	return state.save()
}
