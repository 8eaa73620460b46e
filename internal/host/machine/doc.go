// Package machine gives a process the surroundings of a computer of its own: namespaces,
// a root that is a copy-on-write view of this machine's, devices, a network link.
//
// It is the lab's basement. It builds nothing outside the namespaces that it makes itself,
// and knows nothing of Slurm or enclaves. Called by internal/lab only.
package machine
