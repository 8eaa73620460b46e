package job

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Script says which of Slurm's four scripts runs.
type Script string

// The values of SLURM_SCRIPT_CONTEXT that concern us.
const (
	PrologController Script = "prolog_slurmctld"
	EpilogController Script = "epilog_slurmctld"
	PrologNode       Script = "prolog_slurmd"
	EpilogNode       Script = "epilog_slurmd"
)

// OnController is true for the two scripts that slurmctld runs.
func (s Script) OnController() bool { return s == PrologController || s == EpilogController }

// Context is what the environment says besides the job itself.
type Context struct {
	Script Script
	Node   string // SLURMD_NODENAME; "" on the controller
	HetJob uint32 // job id of a heterogeneous job's first component; 0 for other jobs
	Exit   Exit   // epilogs only
}

// Exit is how the job ended as the epilogs see it: wait statuses.
type Exit struct {
	Known   bool
	Status  uint32 // of the batch script or the last step: code << 8, or a signal
	Derived uint32 // the highest of all steps
}

// Code is the exit code; ok is false when a signal ended the job or nothing is known.
func (e Exit) Code() (code uint32, ok bool) {
	if !e.Known || e.Status&0x7f != 0 {
		return 0, false
	}
	return e.Status >> 8 & 0xff, true
}

const (
	maxWord = 255 // accounts, users, partitions, clusters
	maxText = 200 // a job's name, shown only
)

// FromPrologEnv reads the environment of a prolog or epilog. SubmitHost, Batch and TimeLimit
// stay zero: no version of Slurm tells them there.
func FromPrologEnv(env func(string) string) (enclave.Job, Context, error) {
	r := &reader{env: env}
	c := Context{Script: Script(env("SLURM_SCRIPT_CONTEXT"))}
	switch c.Script {
	case PrologController, EpilogController, PrologNode, EpilogNode:
	default:
		return enclave.Job{}, Context{}, fmt.Errorf("read SLURM_SCRIPT_CONTEXT: %q is no prolog or epilog", shorten(string(c.Script)))
	}
	j := enclave.Job{
		JobKey: enclave.JobKey{
			Cluster: r.word("SLURM_CLUSTER_NAME", true),
			Job:     r.jobID(),
			Restart: r.number("SLURM_JOB_RESTART_COUNT", false),
		},
		HetOffset: r.number("SLURM_HET_JOB_OFFSET", false),
		UID:       r.number("SLURM_JOB_UID", true),
		GID:       r.number("SLURM_JOB_GID", true),
		User:      r.word("SLURM_JOB_USER", false),
		Account:   r.word("SLURM_JOB_ACCOUNT", false),
		// A job that slurmctld has forgotten is aborted without a credential: its epilog has no partition, and
		// root for its user [tried: 22.05, 24.11].
		Partition: r.word("SLURM_JOB_PARTITION", c.Script != EpilogNode),
		Name:      Printable(env("SLURM_JOB_NAME"), maxText),
	}
	c.HetJob = r.number("SLURM_HET_JOB_ID", false)
	// An epilog that Slurm asks for again, because it has not heard of the first one's end, has an empty
	// list on 22.05 [tried]. It is to close this node all the same.
	listed := c.Script != EpilogNode || env("SLURM_NODELIST") != "" || env("SLURM_JOB_NODELIST") != ""
	if listed {
		j.Nodes = r.nodes()
	}
	if !c.Script.OnController() {
		c.Node = r.node(j.Nodes, listed)
	}
	if c.Script == EpilogController || c.Script == EpilogNode {
		c.Exit = r.exit()
	}
	if r.err != nil {
		return enclave.Job{}, Context{}, r.err
	}
	return j, c, nil
}

// reader keeps the first error, so that the list above reads as a list.
type reader struct {
	env func(string) string
	err error
}

func (r *reader) fail(name string, err error) {
	if r.err == nil {
		r.err = fmt.Errorf("read %s: %w", name, err)
	}
}

// number is an unsigned decimal without sign, space or leading zero.
func (r *reader) number(name string, required bool) uint32 {
	s := r.env(name)
	if s == "" && !required {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || strconv.FormatUint(n, 10) != s {
		r.fail(name, fmt.Errorf("%q is no number of 32 bits", shorten(s)))
	}
	return uint32(n)
}

// jobID wants SLURM_JOB_ID and its old spelling to agree where both are set.
func (r *reader) jobID() uint32 {
	id := r.number("SLURM_JOB_ID", true)
	if old := r.number("SLURM_JOBID", false); r.err == nil && old != 0 && old != id {
		r.fail("SLURM_JOBID", fmt.Errorf("%d is not SLURM_JOB_ID, %d", old, id))
	}
	// The two highest numbers mean INFINITE and NO_VAL to Slurm.
	if r.err == nil && (id == 0 || id >= 0xfffffffe) {
		r.fail("SLURM_JOB_ID", fmt.Errorf("%d is no job", id))
	}
	return id
}

// word is a name made of printable ASCII without spaces and without what a shell, a path or
// Slurm's own key=value syntax would read.
func (r *reader) word(name string, required bool) string {
	s := r.env(name)
	if s == "" && !required {
		return ""
	}
	if err := CheckWord(s); err != nil {
		r.fail(name, err)
	}
	return s
}

// nodes prefers SLURM_JOB_NODELIST; nodes of 22.05 have SLURM_NODELIST only.
func (r *reader) nodes() []string {
	name := "SLURM_JOB_NODELIST"
	list := r.env(name)
	if other := r.env("SLURM_NODELIST"); list == "" {
		name, list = "SLURM_NODELIST", other
	} else if other != "" && other != list {
		r.fail("SLURM_NODELIST", fmt.Errorf("%q is not SLURM_JOB_NODELIST", shorten(other)))
	}
	nodes, err := Expand(list)
	if err != nil {
		r.fail(name, err)
	}
	return nodes
}

func (r *reader) node(nodes []string, listed bool) string {
	const name = "SLURMD_NODENAME"
	n := r.env(name)
	if err := CheckNodeName(n); err != nil {
		r.fail(name, err)
	} else if listed && !slices.Contains(nodes, n) {
		r.fail(name, fmt.Errorf("%s is not in the job's nodelist", n))
	}
	return n
}

func (r *reader) exit() Exit {
	if r.env("SLURM_JOB_EXIT_CODE") == "" {
		return Exit{}
	}
	return Exit{
		Known:   true,
		Status:  r.number("SLURM_JOB_EXIT_CODE", true),
		Derived: r.number("SLURM_JOB_DERIVED_EC", false),
	}
}

// CheckWord accepts the names that accounts, users, partitions and clusters have: letters,
// digits and "-_.@+", not beginning with "-" or ".".
func CheckWord(s string) error {
	if s == "" || len(s) > maxWord {
		return fmt.Errorf("%q: want 1 to %d characters", shorten(s), maxWord)
	}
	for i := range len(s) {
		c := s[i]
		alnum := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !alnum && !strings.ContainsRune("_@+", rune(c)) && (i == 0 || c != '-' && c != '.') {
			return fmt.Errorf("%q: want letters, digits and '-_.@+'", shorten(s))
		}
	}
	return nil
}

// Printable makes a text that is only shown fit for a terminal and a log: printable ASCII
// stays, everything else becomes "?", at most limit bytes.
func Printable(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s[:min(len(s), 4*limit)])
	return s[:min(len(s), limit)]
}
