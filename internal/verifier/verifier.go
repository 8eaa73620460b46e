// Package verifier decides whether a job may run: it hands out nonces, has evidence appraised,
// holds two barriers per job, signs the roster, and says whose fault a refusal is.
//
// There is no HTTP in it and no call to Slurm: internal/verifier/server speaks to nodes and
// people, the site role to Slurm, both through the interfaces below. Who calls is decided
// before a call arrives here: a node argument is the name in a checked certificate.
package verifier

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/pki"
)

// Jobs asks Slurm.
type Jobs interface {
	JobState(ctx context.Context, job uint32) (enclave.JobState, error)
}

// Nodes takes nodes out of Slurm's service and back. Resume does nothing unless the node's
// reason starts with the prefix: what an admin drained stays drained. drained is when we did it.
type Nodes interface {
	Drain(ctx context.Context, node, reason string) error
	Resume(ctx context.Context, node, reasonPrefix string, drained time.Time) error
}

// Outcomes tells Slurm what became of a job. Requeue of a job that is pending already is no
// error, nor is End of one that is over.
type Outcomes interface {
	End(ctx context.Context, key enclave.JobKey, reason string) error
	Requeue(ctx context.Context, key enclave.JobKey, reason string) error
	RecordVerdict(ctx context.Context, key enclave.JobKey, comment []byte) error
}

// Site is the site role as the verifier sees it.
type Site interface {
	Jobs
	Nodes
	Outcomes
}

// Tenants finds the tenant of an account; its error is a Refusal.
type Tenants interface {
	Lookup(account, wanted string) (enclave.Tenant, error)
}

// Appraiser says what a piece of evidence is worth. It asks nobody and keeps nothing.
type Appraiser interface {
	// Policy is the digest of a policy by name, "" being the default.
	Policy(name string) (enclave.Digest, error)
	// Text is the text of a policy that is in force, by its digest.
	Text(d enclave.Digest) (string, error)
	// Appraise judges evidence for a claim that the verifier computed itself, from a node that was
	// enrolled on this machine.
	Appraise(r Rules, e enclave.Evidence, c claim.Claim, m Machine) enclave.AttestationResult
	// Identify checks chain, signature and claim only: an admin decides on the rest of an enrolment.
	Identify(e enclave.Evidence, c claim.Claim) enclave.AttestationResult
}

// Rules name the policy to judge by.
type Rules struct {
	Name string // of a policy in force, "" being the default
	Text string // of the policy itself, where the job was started under one that is no longer in force
}

// Machine is what an admin has enrolled under a node's name, in hexadecimal.
type Machine struct {
	Chip     string // CHIP_ID, all zero where the host masks it
	ReportID string // then REPORT_ID, else empty
}

// Settings is what a Verifier is made of. All fields are needed.
type Settings struct {
	Config    config.Config
	Inventory config.Inventory
	Key       ed25519.PrivateKey
	Receipts  ReceiptKeys
	Ledger    *ledger.Ledger
	Site      Site
	Tenants   Tenants
	Appraiser Appraiser
	Authority *pki.Authority
	Alarm     func(ledger.Alarm) // is told of every alarm, for the log
}

// Verifier holds the starts of jobs that are under way, and the jobs that run. What is decided
// stands in the ledger; what is not yet decided is lost with the process, and those jobs are
// requeued. Jobs that run go on over a restart.
type Verifier struct {
	Settings
	digest   enclave.Digest               // SHA-256 of the raw public key: the claim's verifier key
	over     chan struct{}                // a job may have become ready for its receipt
	fleet    chan struct{}                // a node was enrolled or revoked
	unsealed map[enclave.JobKey]time.Time // receipts that could not be made, by when that was told
	unable   map[string]time.Time         // checks that could not be made, by when that was told last
	ended    map[enclave.JobKey]time.Time // starts whose receipts wait, by when that began on this process's own clock
	later    later
	banned   *banned
	asked    time.Time               // when Slurm was last asked about jobs that nobody said to be over
	dead     map[enclave.JobKey]bool // those that were not alive then
	tickets  *tickets
	cores    *cores
	lines    map[string]enclave.Node // of the inventory, by name
	pending  *pending
	proofs   proofs

	life context.Context //nolint:containedctx // the life of the watchers, ended by Close
	end  context.CancelFunc
	jobs sync.WaitGroup

	mu     sync.Mutex
	starts map[enclave.JobKey]*start
	runs   map[enclave.JobKey]*run

	storm sync.Mutex // held from reading the window to the last drain, so that rulings never cross
}

// New makes a Verifier. It runs until Close.
func New(ctx context.Context, s Settings) (*Verifier, error) {
	if err := s.Receipts.check(s.Key); err != nil {
		return nil, fmt.Errorf("make verifier: %w", err)
	}
	if len(s.Key) != ed25519.PrivateKeySize || s.Ledger == nil || s.Site == nil || s.Tenants == nil || s.Appraiser == nil || s.Authority == nil || s.Alarm == nil {
		return nil, errors.New("make verifier: a part is missing")
	}
	if _, err := s.Appraiser.Policy(""); err != nil {
		return nil, err
	}
	v := &Verifier{
		Settings: s, lines: map[string]enclave.Node{}, banned: newBanned(), tickets: newTickets(), pending: newPending(), proofs: proofs{last: map[string]proof{}}, starts: map[enclave.JobKey]*start{}, runs: map[enclave.JobKey]*run{},
		over: make(chan struct{}, 1), fleet: make(chan struct{}, 1), unsealed: map[enclave.JobKey]time.Time{},
		ended: map[enclave.JobKey]time.Time{}, unable: map[string]time.Time{},
	}
	for _, n := range s.Inventory.Nodes {
		v.lines[n.Name] = n
	}
	v.digest = sha256.Sum256(v.Public())
	v.life, v.end = context.WithCancel(context.WithoutCancel(ctx))
	v.cores = newCores(v.life.Done())
	if err := v.resume(ctx); err != nil {
		return nil, err
	}
	for range runtime.GOMAXPROCS(0) {
		v.jobs.Go(v.cores.compute)
	}
	v.jobs.Go(v.clock)
	return v, nil
}

// Public is the verifier's public key.
func (v *Verifier) Public() ed25519.PublicKey {
	return ed25519.PublicKey(v.Key[ed25519.SeedSize:])
}

// Close ends the barriers that are open, with service refusals, and waits for their watchers.
func (v *Verifier) Close() {
	v.end()
	v.jobs.Wait()
}

// alarm stores an alarm and passes it on; a ledger that can't hold it doesn't keep it from the log.
func (v *Verifier) alarm(ctx context.Context, code enclave.Code, reason string) {
	a := ledger.Alarm{Code: code, Reason: reason, At: time.Now()}
	if err := v.Ledger.AddAlarm(ctx, a); err != nil {
		a.Reason += " (" + err.Error() + ")"
	}
	v.Alarm(a)
}

// Raise is an alarm of whoever runs the verifier.
func (v *Verifier) Raise(ctx context.Context, code enclave.Code, reason string) {
	v.alarm(ctx, code, reason)
}

// find gives the start of a job that is under way here.
func (v *Verifier) find(k enclave.JobKey, node string) (*start, *seat, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := v.starts[k]
	if s == nil {
		return nil, nil, unknownJob(k)
	}
	seat := s.seats[node]
	if seat == nil {
		return nil, nil, enclave.Refuse("E128", enclave.FaultRequest, "node %s is not one of job %s", node, k)
	}
	return s, seat, nil
}

func unknownJob(k enclave.JobKey) error {
	r := enclave.Refuse("E502", enclave.FaultService, "this verifier does not know job %s: not registered, or enclaved was restarted in between", k)
	r.Fix = "nothing to do, the job is requeued"
	return r
}

const codeLedger enclave.Code = "E507"

func ledgerRefusal(err error) *enclave.Refusal {
	r := enclave.Refuse(codeLedger, enclave.FaultService, "the ledger can't be used: %v", err)
	r.Fix = "check space and permissions of the state directory on the controller"
	return r
}
