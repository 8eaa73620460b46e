package family

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// fabrics are the first letters of devices of fast networks that lie in /dev itself, each with a library that MPI takes by itself: Omni-Path
// (PSM2), True Scale (PSM), Slingshot (libfabric), Aries (uGNI) and Myrinet. What goes through them is no packet that
// the fence sees. Those in /dev/infiniband are covered in the job's view.
var fabrics = []string{"hfi1", "ipath", "cxi", "kgni", "myri"}

// Fabrics lists the devices of fast networks in a directory, /dev, that others than root may open.
func Fabrics(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	var open []string
	for _, e := range entries {
		if e.Type()&os.ModeCharDevice == 0 || !slices.ContainsFunc(fabrics, func(f string) bool { return strings.HasPrefix(e.Name(), f) }) {
			continue
		}
		name := filepath.Join(dir, e.Name())
		info, err := os.Lstat(name)
		if err != nil {
			return nil, fmt.Errorf("look at device: %w", err)
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok || st.Uid != 0 || st.Mode&0o066 != 0 {
			open = append(open, name)
		}
	}
	return open, nil
}
