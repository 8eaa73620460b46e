package door

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/slurm-enclave/slurm-enclave/internal/attest"
	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/fence"
	"github.com/slurm-enclave/slurm-enclave/internal/gate"
	"github.com/slurm-enclave/slurm-enclave/internal/host/process"
	"github.com/slurm-enclave/slurm-enclave/internal/host/spawn"
	"github.com/slurm-enclave/slurm-enclave/internal/journal"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/client"
)

// uidMin is where people begin: ids below are daemons, which no fence holds and no kill meets.
const uidMin = 1000

// node is one run of prolog or epilog on a node: the job, the site's words, and what has been
// learned on the way.
type node struct {
	log     *logrus.Entry
	config  config.Config
	job     enclave.Job
	name    string // NodeName
	boot    string
	gate    gate.Directory
	client  *client.Client // nil when there is none to be had
	journal *journal.Journal
	subuids []enclave.UIDRange
	phases  map[string]int64 // milliseconds

	// Known from the roster on; the epilog has none of it.
	epoch  uint32
	keys   attest.Keys
	header enclave.RosterHeader
	own    enclave.Peer
	leaves []enclave.Peer // the whole roster, in its order
	peers  []mesh.Peer
	keeper *spawn.Handle
	until  uint64 // CLOCK_BOOTTIME, seconds: the end of the roster's lifetime
	device mesh.Device

	assurance string // of the view, as it was proved
	table     fence.Table
}

// newNode knows the job and this boot. Everything that can fail for the site's reasons comes
// later, when there is somebody to tell.
func newNode(log *logrus.Logger, j enclave.Job, name string) (*node, error) {
	boot, err := process.BootID()
	if err != nil {
		return nil, err
	}
	n := &node{
		log: log.WithFields(logrus.Fields{"job": j.Directory(), "node": name}), job: j, name: name, boot: boot,
		gate: gate.Directory{Path: GateDir}, phases: map[string]int64{},
	}
	return n, runDirs()
}

// configure reads the site's words and the node's identity.
func (n *node) configure() (err error) {
	if n.config, err = loadConfig(); err != nil {
		return errors.Join(errNoConfig, nodeError("E002", "correct "+ConfigFile, "%s", err))
	}
	pin, err := n.config.Verifier.KeyDigest()
	if err != nil {
		return nodeError("E002", "correct "+ConfigFile, "%s", err)
	}
	if n.subuids, err = process.SubordinateIDs(n.job.User, n.job.UID, uidMin); err != nil {
		return nodeError("E204", "correct /etc/subuid", "%s", err)
	}
	certificate, err := client.LoadNode(StateDir)
	if err != nil {
		return nodeError("E205", "enrol this node: enclave node enrol --request", "%s", err)
	}
	n.client = client.New(client.Options{
		Address: n.config.Verifier.Address, Pin: pin, Certificate: certificate, Patience: 10 * time.Second,
	})
	return nil
}

// errNoConfig says that not even the names of what is to be taken down are known.
var errNoConfig = errors.New("no configuration")

// timed runs a phase and remembers how long it took.
func (n *node) timed(phase string, f func() error) error {
	start := time.Now()
	err := f()
	n.phases[phase] += time.Since(start).Milliseconds()
	return err
}

func (n *node) directory() string { return filepath.Join(RunDir, n.job.Directory()) }

func (n *node) request() api.NodeRequest {
	return api.NodeRequest{Job: n.job.JobKey, Node: n.name, Epoch: n.epoch}
}

// uids are all users of the job: the submitter and the sub-uids that user namespaces map. A
// daemon's id has none: its job was refused, and its processes are the node's.
func (n *node) uids() []enclave.UIDRange {
	if n.job.UID < uidMin {
		return nil
	}
	return append([]enclave.UIDRange{{Start: n.job.UID, Count: 1}}, n.subuids...)
}

// addresses are all addresses of the job's nodes, this one's included.
func (n *node) addresses() []netip.Addr {
	all := slices.Clone(n.own.Addresses)
	for _, p := range n.peers {
		if p.Node != n.name {
			all = append(all, p.Addresses...)
		}
	}
	return all
}

// deny writes the reason that the job's user will read when the gate refuses the tasks.
func (n *node) deny(r *enclave.Refusal) {
	n.log.WithField("code", r.Code).Warn("job refused: " + r.Reason)
	if err := errors.Join(n.gate.RemoveGo(n.job.Job), n.gate.WriteDeny(gate.DenyOf(n.job.Job, r))); err != nil {
		// The gate refuses without GO all the same; only the reason is lost.
		n.log.WithError(err).Error("reason not written")
	}
}

const tellTimeout = 20 * time.Second

// broken tells the verifier that this node can't take part, and returns what was decided. When
// the verifier can't be told, the node speaks for itself.
func (n *node) broken(ctx context.Context, r *enclave.Refusal) *enclave.Refusal {
	if n.client == nil {
		return r
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tellTimeout)
	defer cancel()
	// A connection that is older than the job's fence is known to conntrack, and was not tracked under that
	// fence: to the closed one its packets are of another time, and the answer would be dropped.
	n.client.Close()
	decided, err := n.client.Broken(ctx, n.request(), *r)
	if err != nil {
		n.log.WithError(err).Error("verifier not told")
		return r
	}
	return &decided
}

func nodeError(code enclave.Code, fix, format string, args ...any) *enclave.Refusal {
	r := enclave.Refuse(code, enclave.FaultNode, format, args...)
	r.Fix = fix
	return r
}

// boottime is CLOCK_BOOTTIME in nanoseconds, for the journal; a kernel without that clock runs
// no SEV-SNP guest.
func boottime() int64 {
	ns, err := process.Boottime()
	if err != nil {
		return 0
	}
	return ns
}
