// Package door is what stands behind Slurm's four scripts: the front door opens an enclave's
// rooms on a node in order, the back door closes them in reverse, and on the controller one
// announces the job and the other settles it.
//
// The order of the rooms is written once, in rooms.go, for both directions. The exit codes are
// an API (Slurm drains a node whose prolog or epilog fails): only "this node is broken" leaves
// with 1. prolog and epilog are the programs; both are thin.
package door

// Places on a node and on the controller.
const (
	Marker     = "/etc/slurm-enclave/enclave-node" // makes a node enclave-only
	ConfigFile = "/etc/slurm-enclave/enclave.yaml"
	RunDir     = "/run/slurm-enclave"
	GateDir    = RunDir + "/gate"
	StateDir   = "/var/lib/slurm-enclave"
	KeeperPath = "/usr/libexec/slurm-enclave/enclave-keeper"
	ViewPath   = "/usr/libexec/slurm-enclave/enclave-view" // CloneNSScript of job_container.conf, where isolation is namespace
)
