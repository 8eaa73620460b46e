package vmtest

import (
	"bufio"
	"bytes"
	"debug/elf"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed init.sh
var initScript []byte

// modules are what a machine may ask for, beside all of nftables and of connection tracking;
// what they need comes with them. One that is built into the kernel is no module.
var modules = []string{
	"virtio_pci", "virtio_console", "virtio_net", "virtio_rng", "virtio_blk", "wireguard", "tun", "veth", "bridge", "dummy",
	"sctp", "loop", "overlay", "fuse", "configfs",
}

// daemons are the users of a machine below the users' ids.
var daemons = map[string]uint32{"munge": 901, "slurm": 902, "enclave": 903}

func wanted(name string) bool {
	return strings.HasPrefix(name, "nft_") || strings.HasPrefix(name, "nf_") || strings.HasPrefix(name, "nfnetlink") ||
		slices.Contains(modules, name)
}

// Image is what a machine boots: a kernel and an initial file system.
type Image struct {
	Release string // of the kernel
	kernel  string
	initrd  string
}

// Contents are the programs of an image beside busybox, dash, ip and nft: path in the machine to path
// here. The one at /agent must call Play. A program that is linked to libraries brings them.
type Contents map[string]string

// Kernel is where `make deps` lays the kernel.
const kernelDirectory = ".cache/vm/kernel"

// Build makes an image in the directory.
func Build(directory string, c Contents) (Image, error) {
	top, err := Top()
	if err != nil {
		return Image{}, err
	}
	root := filepath.Join(top, kernelDirectory)
	found, err := filepath.Glob(filepath.Join(root, "boot/vmlinuz-*"))
	if err != nil || len(found) != 1 {
		return Image{}, fmt.Errorf("want one kernel in %s, found %d: run make deps", filepath.Join(root, "boot"), len(found))
	}
	img := Image{
		Release: strings.TrimPrefix(filepath.Base(found[0]), "vmlinuz-"),
		kernel:  found[0], initrd: filepath.Join(directory, "initrd"),
	}
	f, err := os.OpenFile(img.initrd, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return img, err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	err = errors.Join(fill(newArchive(w), root, img.Release, c), w.Flush(), f.Close())
	if err != nil {
		return img, fmt.Errorf("build image: %w", err)
	}
	return img, nil
}

// Top is the directory of the module, above the calling test's.
func Top() (string, error) {
	dir, err := os.Getwd()
	for ; err == nil && dir != "/"; dir = filepath.Dir(dir) {
		if _, gone := os.Stat(filepath.Join(dir, "go.mod")); gone == nil {
			return dir, nil
		}
	}
	return "", errors.Join(errors.New("no go.mod above the working directory"), err)
}

func fill(a *archive, root, release string, c Contents) error {
	for _, d := range []string{"/proc", "/sys", "/dev", "/run", "/tmp", "/root", "/sbin", "/etc", "/mnt", "/srv", "/usr/sbin", "/var", "/var/log", "/var/lib", "/home"} {
		a.directory(d)
	}
	a.link("/var/run", "/run")
	a.link("/sbin/modprobe", "/bin/busybox")
	a.file("/etc/hostname", 0o644, []byte("vm\n"))
	passwd, group := "root:x:0:0::/root:/bin/sh\nalice:x:2001:2001::/home/alice:/bin/sh\n", "root:x:0:\nalice:x:2001:\n"
	for _, name := range slices.Sorted(maps.Keys(daemons)) {
		passwd += fmt.Sprintf("%s:x:%d:%[2]d::/nonexistent:/bin/false\n", name, daemons[name])
		group += fmt.Sprintf("%s:x:%d:\n", name, daemons[name])
	}
	a.file("/etc/passwd", 0o644, []byte(passwd))
	a.file("/etc/group", 0o644, []byte(group))
	a.file("/init", 0o755, initScript)
	all := maps.Clone(c)
	for to, name := range map[string]string{"/bin/busybox": "busybox", "/bin/dash": "dash", "/sbin/ip": "ip", "/sbin/nft": "nft"} {
		from, err := program(name)
		if err != nil {
			return err
		}
		all[to] = from
	}
	for to, from := range all {
		a.copy(to, from)
		if err := libraries(a, from); err != nil {
			return err
		}
	}
	if err := kernelModules(a, root, release); err != nil {
		return err
	}
	return a.close()
}

func program(name string) (string, error) {
	for _, dir := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return filepath.Join(dir, name), nil
		}
	}
	return "", fmt.Errorf("no %s here: run make deps", name)
}

// libraries puts in what a program is linked to, at the same place.
func libraries(a *archive, name string) error {
	f, err := elf.Open(name)
	if _, data := errors.AsType[*elf.FormatError](err); data {
		return nil // a file of another kind
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	defer func() { _ = f.Close() }()
	if s := f.Section(".interp"); s != nil {
		b, unread := s.Data()
		if unread != nil {
			return fmt.Errorf("read %s: %w", name, unread)
		}
		loader := string(bytes.TrimRight(b, "\x00"))
		a.copy(loader, loader)
	}
	needed, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	for _, l := range needed {
		at := ""
		for _, dir := range []string{"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/lib", "/usr/lib/x86_64-linux-gnu/slurm-wlm"} {
			if _, err := os.Stat(filepath.Join(dir, l)); err == nil {
				at = filepath.Join(dir, l)
				break
			}
		}
		switch {
		case at == "":
			return fmt.Errorf("%s needs %s, which is not here", name, l)
		case a.made[at]:
			continue
		}
		a.copy(at, at)
		if err := libraries(a, at); err != nil {
			return err
		}
	}
	return nil
}

// kernelModules puts in the modules, what they need, and the lists by which modprobe finds them.
func kernelModules(a *archive, root, release string) error {
	dir := filepath.Join("lib/modules", release)
	list, err := os.ReadFile(filepath.Join(root, dir, "modules.dep"))
	if err != nil {
		return fmt.Errorf("%w: run make deps", err)
	}
	var lines []string
	for line := range strings.Lines(string(list)) {
		file, needs, _ := strings.Cut(strings.TrimSpace(line), ":")
		name := strings.ReplaceAll(strings.TrimSuffix(filepath.Base(file), ".ko"), "-", "_")
		if !wanted(name) {
			continue
		}
		lines = append(lines, line)
		for _, m := range append(strings.Fields(needs), file) {
			a.copy(filepath.Join("/", dir, m), filepath.Join(root, dir, m))
		}
	}
	if len(lines) < 20 { // some are built in with one kernel and modules with another
		return fmt.Errorf("%s has only %d of the modules: run make deps", root, len(lines))
	}
	// The whole lists: a module that another one needs is in them under its own name.
	for _, name := range []string{"modules.dep", "modules.alias", "modules.symbols", "modules.builtin"} {
		b, err := os.ReadFile(filepath.Join(root, dir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		a.file(filepath.Join("/", dir, name), 0o644, b)
	}
	return nil
}
