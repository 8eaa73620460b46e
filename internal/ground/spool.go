package ground

import (
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// defaultSpool is slurmd's own default of SlurmdSpoolDir.
const defaultSpool = "/var/spool/slurmd"

// SpoolDirectory is SlurmdSpoolDir of slurm.conf, for the node of this name on this host, as slurmd spells
// it out: %n is the node, %h the host's name up to the first dot, any other % stays.
func SpoolDirectory(files Files, conf, node, host string) (string, *enclave.Refusal) {
	values, refusal := ReadValues(files, conf)
	if refusal != nil {
		return "", refusal
	}
	dir := values["slurmdspooldir"]
	if dir == "" {
		return defaultSpool, nil
	}
	short, _, _ := strings.Cut(host, ".")
	if node == "" {
		node = short
	}
	return strings.NewReplacer("%n", node, "%h", short).Replace(dir), nil
}
