// Package bench measures what the network of an enclave costs: the same programs between two
// nodes in the clear, in an enclave, and through OpenVPN as the works before us did it.
//
// It is an assembly: it submits jobs through Slurm as the user who asks, interleaves them, reads
// what they print, and says what can be concluded and what can't. It computes no figure that was
// not measured, and compares no runs of different machines. It knows the kernel only through a
// Shell; `enclave bench net` calls it.
package bench
