// Package ground decides whether a node is fit to begin a job: whether slurmd loads the gate,
// whether an earlier job is still there, and whether somebody's processes are.
//
// The decisions are pure; facts come through small interfaces and from Node, which reads them.
// Nothing here kills, unmounts or writes: what is to be cleaned first is returned as a value.
package ground

import "github.com/slurm-enclave/slurm-enclave/internal/enclave"

// Codes of this room's refusals.
const (
	CodeUnclean   enclave.Code = "E202" // what an earlier job left could not be cleaned
	CodeForeign   enclave.Code = "E203" // somebody's processes do not end
	CodeSuspended enclave.Code = "E206" // another job is on the node
	CodeMarker    enclave.Code = "E207"
	CodeNoGate    enclave.Code = "E210"
	CodeOptional  enclave.Code = "E211"
	CodeWritable  enclave.Code = "E212"
	CodeUnread    enclave.Code = "E213"
	CodeNoPlugin  enclave.Code = "E214"
	CodePlugin    enclave.Code = "E215"
	CodeRelease   enclave.Code = "E216"
	CodeContainer enclave.Code = "E323" // isolation namespace, and Slurm is not set up for it
)

func broken(code enclave.Code, check, fix, format string, args ...any) *enclave.Refusal {
	r := enclave.Refuse(code, enclave.FaultNode, format, args...)
	r.Check, r.Fix = check, fix
	return r
}

// Marker refuses a node whose marker somebody else could have put there or could take away.
func Marker(insecure error) *enclave.Refusal {
	if insecure == nil {
		return nil
	}
	return broken(CodeMarker, "marker", "make it and its directories root's, writable by root alone", "%v", insecure)
}
