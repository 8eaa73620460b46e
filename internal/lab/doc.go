// Package lab brings up a real Slurm cluster with enclaves on one machine, for people to try
// and for tests to attack.
//
// Every host of the lab is a set of namespaces with a root of its own: an overlay on this
// machine's, or on another root. All of it hangs on one supervisor, the first process of a PID
// namespace, so that ending it ends the lab: no link, mount, rule or process can outlive it.
// Simulated are the SEV-SNP device and the parallel file system, nothing else; what signs
// there is a test hierarchy, and every verdict says SIMULATED.
//
// It is used by cmd/enclave-lab and by the end-to-end tests.
package lab
