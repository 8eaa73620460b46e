package cli

// EvidenceCommandWithStore is the command with another store of certificates.
var EvidenceCommandWithStore = evidenceCommand
