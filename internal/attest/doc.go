// Package attest is the node's side of attestation: it makes a job's keys and asks the processor
// for a report that names them.
//
// Keys live in memory only. Reports come from the kernel's configfs-tsm with plain file calls.
// The package appraises nothing: whether the report is any good is for the verifier, and a node
// that judged itself would be believed by nobody.
package attest
