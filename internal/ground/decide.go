package ground

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/journal"
)

// Open is a journal that was found on the node. Err is not nil when it is damaged; the record then
// holds what could be read.
type Open struct {
	Record journal.Record
	Err    error
}

// Process is a process on the node.
type Process struct {
	PID   int
	UID   uint32 // the real one
	Title string // its command line
}

// Facts are what is on the node when a job is to begin.
type Facts struct {
	Job      enclave.JobKey
	Journals []Open
	Live     []uint32  // jobs with a slurmstepd, or with a keeper and GO
	Foreign  []Process // of people, not of the allowed
}

// Decision is what is to be done before the job may begin.
type Decision struct {
	Clean []journal.Record   // dead jobs' journals: take everything down that they name
	Kill  []enclave.UIDRange // whose processes are to end
}

// Decide says what is to be cleaned before the job may begin. It refuses while another job lives
// on the node: a suspended one, which has gone nowhere. That is nobody's fault; the job waits.
// Earlier starts of the same job are dead, for Slurm ends a job before it starts it again.
func Decide(f Facts) (Decision, *enclave.Refusal) {
	var d Decision
	for _, j := range f.Journals {
		if j.Err == nil && j.Record.Closed() {
			continue // only its report is still to be delivered
		}
		if j.Record.Job != f.Job.Job && slices.Contains(f.Live, j.Record.Job) {
			return Decision{}, Occupied(fmt.Sprintf("job %d is still on this node: suspended, or the partition is not OverSubscribe=EXCLUSIVE", j.Record.Job))
		}
		d.Clean = append(d.Clean, j.Record)
	}
	for _, p := range f.Foreign {
		one := enclave.UIDRange{Start: p.UID, Count: 1}
		if !slices.Contains(d.Kill, one) {
			d.Kill = append(d.Kill, one)
		}
	}
	slices.SortFunc(d.Kill, func(a, b enclave.UIDRange) int { return int(int64(a.Start) - int64(b.Start)) })
	return d, nil
}

// Occupied refuses a job on a node that is another's. That is nobody's fault; the job waits.
func Occupied(why string) *enclave.Refusal {
	r := enclave.Refuse(CodeSuspended, enclave.FaultService, "%s", why)
	r.Check, r.Fix = "journal", "end or resume the other job; enclave doctor"
	return r
}

// StillForeign refuses the node when processes are left that were to end.
func StillForeign(left []Process) *enclave.Refusal {
	if len(left) == 0 {
		return nil
	}
	const most = 3
	var names []string
	for _, p := range left[:min(len(left), most)] {
		names = append(names, fmt.Sprintf("pid %d uid %d", p.PID, p.UID))
	}
	return broken(CodeForeign, "processes", "end them, or reboot", "%d processes of other users do not end: %s", len(left), strings.Join(names, ", "))
}

// Uncleaned refuses the node when what a dead job left could not be taken down.
func Uncleaned(key enclave.JobKey, err error) *enclave.Refusal {
	if err == nil {
		return nil
	}
	fix := "clean up by hand, or reboot"
	if inner, ok := enclave.AsRefusal(err); ok && inner.Fix != "" {
		fix = inner.Fix
	}
	return broken(CodeUnclean, "journal", fix, "what job %s left is still there: %v", key.Directory(), err)
}

// stepd is the title of slurmstepd: "slurmstepd: [4711.extern]", and "[4711+0.batch]" in a
// heterogeneous job.
var stepd = regexp.MustCompile(`^slurmstepd: \[([0-9]{1,10})(?:\+[0-9]+)?\.[A-Za-z0-9_+]+\]`)

// LiveJobs finds the jobs that have a slurmstepd. Root alone counts: a user can give a process
// any title.
func LiveJobs(processes []Process) []uint32 {
	return named(stepd, processes)
}

func named(title *regexp.Regexp, processes []Process) []uint32 {
	var live []uint32
	for _, p := range processes {
		m := title.FindStringSubmatch(p.Title)
		if p.UID != 0 || m == nil {
			continue
		}
		job, err := strconv.ParseUint(m[1], 10, 32)
		if err == nil && job != 0 && !slices.Contains(live, uint32(job)) {
			live = append(live, uint32(job))
		}
	}
	slices.Sort(live)
	return live
}

// keeper is the title of a job's keeper: "/usr/libexec/slurm-enclave/enclave-keeper 4711.0".
var keeper = regexp.MustCompile(`^/[^ ]*/enclave-keeper ([0-9]{1,10})\.[0-9]{1,10}$`)

// KeptJobs finds the jobs that have a keeper, which lives from the prolog to the epilog. A job has no
// slurmstepd yet when its prolog is over.
func KeptJobs(processes []Process) []uint32 {
	return named(keeper, processes)
}

// Journals reads every journal below base. A journal that is not there although its directory is
// belongs to a prolog that was killed before its first line: nothing was begun.
func Journals(base, cluster string) ([]Open, error) {
	keys, err := journal.List(base, cluster)
	if err != nil {
		return nil, err
	}
	var open []Open
	for _, key := range keys {
		r, err := journal.Load(base, key)
		if err != nil && !errors.Is(err, journal.ErrDamaged) {
			r = journal.Record{}
		}
		r.JobKey = key
		open = append(open, Open{Record: r, Err: err})
	}
	return open, nil
}
