package ground

import (
	"debug/elf"
	"fmt"
	"io"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// releaseSection is the ELF section of the plugin that names its release.
const releaseSection = ".enclave.release"

// ReadRelease reads the release that a plugin was built as.
func ReadRelease(r io.ReaderAt) (string, error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return "", fmt.Errorf("read release: %w", err)
	}
	s := f.Section(releaseSection)
	if s == nil {
		return "", fmt.Errorf("read release: no section %s: not a plugin of ours", releaseSection)
	}
	b, err := s.Data()
	if err != nil {
		return "", fmt.Errorf("read release: %w", err)
	}
	text, _, _ := strings.Cut(string(b), "\x00")
	if text == "" {
		return "", fmt.Errorf("read release: section %s is empty", releaseSection)
	}
	return text, nil
}

// SameRelease refuses a plugin of another release: it may read another format of GO.
func SameRelease(p Plugin, theirs, ours string) *enclave.Refusal {
	if theirs == ours && ours != "" {
		return nil
	}
	return broken(CodeRelease, "plugstack", "install plugin and programs of one release, then restart slurmd",
		"%s is of release %q, this program of %q", p.Path, theirs, ours)
}
