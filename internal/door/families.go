package door

import (
	"slices"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// codeFamilies: a socket of a kind that no tunnel carries and no fence sees could be opened.
const codeFamilies enclave.Code = "E208"

// codeFabric: a job could open the device of a network that no fence sees.
const codeFabric enclave.Code = "E333"

// familiesRefusal holds the socket families that this kernel opens against those that the site
// allows: nil when each of them is allowed.
func familiesRefusal(open, allowed []string) *enclave.Refusal {
	var over []string
	for _, f := range open {
		if !slices.Contains(allowed, f) {
			over = append(over, f)
		}
	}
	if len(over) == 0 {
		return nil
	}
	slices.Sort(over)
	r := nodeError(codeFamilies, "install modprobe.d/slurm-enclave.conf of the samples and reboot, or list them in network.families",
		"a job could open sockets that pass by the fence: %s", strings.Join(over, ", "))
	r.Check = "families"
	return r
}

// fabricsRefusal is nil where no device of a fast network can be opened by users. There is no list of those that
// may: a job's MPI would take it by itself, and its data with it.
func fabricsRefusal(open []string) *enclave.Refusal {
	if len(open) == 0 {
		return nil
	}
	r := nodeError(codeFabric, "install udev/99-slurm-enclave.rules of the samples and run udevadm trigger, or chmod 0600 and chown root them",
		"a job could send past tunnel and fence through %s", strings.Join(open, ", "))
	r.Check = "devices"
	return r
}
