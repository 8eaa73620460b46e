// Package attesttest is the lab's SEV-SNP: a processor, its maker and the kernel's report files.
//
// It makes keys in the layout of AMD's (root, intermediate, one VCEK per node and patch level),
// signs reports of any version with any field, and serves them through FUSE as the kernel's
// configfs-tsm does, so that the production attester runs its real mkdir, write and read against
// it. Faults are injected while it runs. Every certificate says SIMULATED, no key of it is known
// to a release, and a verifier believes it only as test roots. The lab and tests use it; nothing
// that runs on a real node imports it.
package attesttest
