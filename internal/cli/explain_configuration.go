package cli

// explainConfiguration are E0xx: what programs say of their files.
func explainConfiguration() []Explanation {
	return []Explanation{
		{"E001", "A file of the configuration is missing, or others than root could have written it.", effectStart, "chown root:root and chmod 0644 it, and the directories above it likewise."},
		{"E002", "enclave.yaml cannot be read or used.", effectStart, "Correct the line that the message names; enclave.yaml(5) has all keys."},
		{"E003", "inventory.yaml cannot be read or used.", effectStart, "Correct the line that the message names."},
		{"E004", "The verifier's key is missing, or others could have read it.", effectStart, "The state directory must be the enclave user's, the key of mode 0400. A new one: enclaved key."},
		{"E005", "verifier.key in enclave.yaml is not this verifier's key.", effectStart, "Put the line that enclaved key prints into enclave.yaml on all hosts."},
		{"E006", "The ledger cannot be opened.", effectStart, "Check space, owner and permissions of the state directory."},
		{"E007", "tenants.yaml cannot be read or used.", effectStart, "Correct the line that the message names."},
		{"E008", "A policy is missing or cannot be used.", effectStart, "Correct or add the file in policy.d that the message names."},
		{"E009", "The table for slurmctld (tenants.lua) cannot be written.", effectStart, "Check space and permissions of the state directory."},
		{"E010", "A node's enclave.yaml cannot be used.", effectDrained, "Correct enclave.yaml there."},
		{"E012", "The user that slurmctld runs as does not exist.", effectStart, "controller.slurm_user must be SlurmUser of slurm.conf."},
		{"E013", "enclaved cannot listen on controller.listen.", effectStart, "Is another enclaved running, or is the address another host's?"},
		{"E014", "enclaved cannot make its Unix socket.", effectStart, "Make its directory the enclave user's, mode 0755; stop the other enclaved."},
		{"E016", "A revocation list in the certificate store is broken, or of no root that is trusted here.", effectStart, "Remove the file that the message names, or fetch it again: enclave certs sync."},
	}
}
