// Package ladder judges one machine rung by rung: processor, memory encryption, a report that was
// really made, kernel and Slurm. It says what kind of machine it is and the one thing to fix.
//
// It is pure: facts in, rows out. It knows that a guest has no /dev/sev and no kvm_amd, and that
// a host makes no report. It reads and probes nothing (internal/host/hardware, internal/host/capability
// and internal/posture do), and none of it is evidence: CPUID and SEV_STATUS say what the
// hypervisor lets them say. `enclave ok` calls it.
package ladder
