// Package etc holds the sample configuration, so that the lab and the tests run on the very
// files that sites copy.
package etc

import "embed"

// Samples are the files of this folder under their own names.
//
//go:embed slurm.conf.d job_container.conf plugstack.conf.d prolog-slurmctld epilog-slurmctld enclave.lua enclave.yaml inventory.yaml tenants.yaml policy.d systemd modprobe.d udev sysctl.d tmpfiles.d
var Samples embed.FS
