package enclave

// JobState is what Slurm says of a job at this moment.
type JobState struct {
	Alive     bool   `json:"alive"`      // its ranks run or may still start (CONFIGURING, RUNNING, SUSPENDED)
	State     string `json:"state"`      // Slurm's base state in capitals: RUNNING, CANCELLED, FAILED, ...
	AllocNode string `json:"alloc_node"` // the host it was submitted from; "" when unknown
	Batch     bool   `json:"batch"`      // false: salloc or srun, nobody can requeue it
	TimeLimit uint32 `json:"time_limit"` // seconds; 0 is unlimited or unknown
	Restart   uint32 `json:"restart"`    // how often it was put back: which start this is
}

// NodeKeys are the public halves of the three keys a node makes for one job.
type NodeKeys struct {
	WireGuard PublicKey `json:"wireguard"`
	Ed25519   PublicKey `json:"ed25519"`
	HPKE      []byte    `json:"hpke"` // MLKEM768X25519, 1216 bytes
}
