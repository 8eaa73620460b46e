package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/host/machine"
)

// The parallel file system's stand-in: one ext4 image for all enclave nodes. SiteParent is the
// root-only folder that the install guide wants; what is mounted in it is the whole file system.
const (
	siteParent = "/srv/enclave-fs"
	siteMount  = siteParent + "/lab"
)

// fileSystem makes and mounts the stand-in, with one tree for each tenant.
func (s *supervisor) fileSystem(ctx context.Context) error {
	image, dir := filepath.Join(s.root, "site.ext4"), filepath.Join(s.root, "site")
	f, err := os.OpenFile(image, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err = f.Truncate(512 << 20); err != nil {
		return err
	}
	if err = os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for _, argv := range [][]string{
		{"mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-m", "0", image},
		{"mount", "-o", "loop,nosuid,nodev", image, dir}, // util-linux frees the loop device with the last mount
	} {
		if err = s.tool(ctx, argv...); err != nil {
			return err
		}
	}
	if s.identity.Loop, err = loopOf(image); err != nil {
		return err
	}
	return trees(dir)
}

// loopOf names the loop device that has the image: down waits until the kernel has let go of it.
func loopOf(image string) (string, error) {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return "", err
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err == nil && strings.TrimSpace(string(b)) == image {
			return filepath.Base(filepath.Dir(filepath.Dir(f))), nil
		}
	}
	return "", fmt.Errorf("find loop device of %s: none has it", image)
}

// trees lays the tenants' folders. The one above them belongs to root, so that no tenant can
// put a link in another's place.
func trees(dir string) error {
	if err := os.Mkdir(filepath.Join(dir, "proj"), 0o755); err != nil {
		return err
	}
	for _, u := range Users() {
		t := tenantOf(u)
		if t == "" {
			continue
		}
		tree := filepath.Join(dir, "proj", t)
		if err := os.Mkdir(tree, 0o770); err != nil {
			return err
		}
		if err := os.Chown(tree, int(u.UID), int(u.UID)); err != nil {
			return err
		}
	}
	return nil
}

// tool runs a program of this machine in the supervisor's namespaces.
func (s *supervisor) tool(ctx context.Context, argv ...string) error {
	return machine.Tool(ctx, argv)
}
