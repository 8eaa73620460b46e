// Package scripts carries the sources that programs of ours compile where they run: MPI has no
// binary interface that holds for all sites.
package scripts

import _ "embed"

// Netbench is the C source of the program that `enclave bench net` measures with.
//
//go:embed mpi/netbench.c
var Netbench string
