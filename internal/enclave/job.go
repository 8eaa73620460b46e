package enclave

import (
	"fmt"
	"strconv"
	"strings"
)

// JobKey names one start of one job. A requeued job keeps its Job number and gets the next
// Restart count, so evidence, rosters and receipts of the two starts never mix.
type JobKey struct {
	Cluster string `json:"cluster"` // ClusterName as slurm.conf spells it
	Job     uint32 `json:"job"`     // Slurm's job id, never 0
	Restart uint32 `json:"restart"` // SLURM_JOB_RESTART_COUNT
}

// Directory is the key's name in the file system, "JOB.RESTART": one path component.
func (k JobKey) Directory() string {
	return fmt.Sprintf("%d.%d", k.Job, k.Restart)
}

// String is the key for people, "CLUSTER/JOB.RESTART".
func (k JobKey) String() string {
	return k.Cluster + "/" + k.Directory()
}

// ParseDirectory reads what Directory wrote; any other spelling is an error.
func ParseDirectory(cluster, s string) (JobKey, error) {
	job, restart, ok := strings.Cut(s, ".")
	j, errJob := strconv.ParseUint(job, 10, 32)
	r, errRestart := strconv.ParseUint(restart, 10, 32)
	k := JobKey{Cluster: cluster, Job: uint32(j), Restart: uint32(r)}
	if !ok || errJob != nil || errRestart != nil || k.Directory() != s {
		return JobKey{}, fmt.Errorf("parse job directory %q: want JOB.RESTART", s)
	}
	return k, nil
}

// Job is what the controller knows of a job when it starts.
type Job struct {
	JobKey
	HetOffset  uint32   `json:"het_offset"`
	UID        uint32   `json:"uid"`
	GID        uint32   `json:"gid"`
	User       string   `json:"user"`
	Account    string   `json:"account"`
	Partition  string   `json:"partition"`
	Name       string   `json:"name"`
	Nodes      []string `json:"nodes"`       // NodeNames, in the order of Slurm's hostlist
	SubmitHost string   `json:"submit_host"` // AllocNode; "" when unknown
	Batch      bool     `json:"batch"`       // false: salloc or srun, nobody can requeue it
	TimeLimit  uint32   `json:"time_limit"`  // seconds; 0 is unlimited
}

// Tenant is a data owner: who may use it, and the subtree that is the tenant's.
type Tenant struct {
	Name     string   `json:"name" yaml:"name"`
	Accounts []string `json:"accounts" yaml:"accounts"`
	Subtree  string   `json:"subtree" yaml:"subtree"`            // relative to the file system's root, canonical
	RootFID  FID      `json:"root_fid,omitzero" yaml:"root_fid"` // of the subtree, on Lustre; see enclave storage register
	Policy   string   `json:"policy" yaml:"policy"`              // name of the appraisal policy
	Required bool     `json:"required" yaml:"required"`          // every job of its accounts is routed to an enclave
}
