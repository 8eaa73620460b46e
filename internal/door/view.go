package door

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/gate"
	"github.com/slurm-enclave/slurm-enclave/internal/host/file"
	"github.com/slurm-enclave/slurm-enclave/internal/host/namespace"
	"github.com/slurm-enclave/slurm-enclave/internal/journal"
	"github.com/slurm-enclave/slurm-enclave/internal/subtree"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

const (
	insideWord = "inside"
	viewLimit  = 8 * time.Second // Slurm gives CloneNSScript 10 s
	planLimit  = 1 << 20
)

// View is enclave-view's main. Slurm's job_container/tmpfs runs it as CloneNSScript, after the
// prolog and before any task, with the job's new mount namespace in SLURM_NS; it runs itself again
// inside. A node without the marker costs the exec and one look at a file.
func View(ctx context.Context, args []string, env func(string) string) int {
	switch {
	case len(args) > 1 && args[1] == namespace.EnterWord:
		err := namespace.Enter(args[0], args[2:])
		_, _ = fmt.Fprintln(os.Stderr, err)
		return exitBroken
	case len(args) > 1 && args[1] == insideWord:
		return viewInside(ctx, os.Stdin, os.Stdout)
	}
	if _, err := os.Lstat(Marker); errors.Is(err, fs.ErrNotExist) {
		return exitFine
	}
	log, done := openLog()
	defer done()
	ctx, cancel := context.WithTimeout(ctx, viewLimit)
	defer cancel()
	return viewOf(ctx, log, env)
}

// viewInside makes the view where it is, and says how that went.
func viewInside(ctx context.Context, in io.Reader, out io.Writer) int {
	var said inside
	b, err := io.ReadAll(io.LimitReader(in, planLimit))
	if err == nil {
		var plan subtree.Plan
		if plan, err = subtree.ParseDetail(string(b)); err == nil {
			said.Assurance, err = subtreeRoom().Enter(ctx, plan)
		}
	}
	if err != nil {
		said = inside{Refusal: refusalOf(err, subtree.CodeMake)}
	}
	if err = json.NewEncoder(out).Encode(said); err != nil || said.Refusal != nil {
		return exitBroken
	}
	return exitFine
}

// viewOf makes the view of the job that Slurm names. Without a view there is no namespace, and no
// task: the gate compares where a task is with what is written here last.
func viewOf(ctx context.Context, log *logrus.Logger, env func(string) string) int {
	number, err := strconv.ParseUint(env("SLURM_JOB_ID"), 10, 32)
	if err != nil || number == 0 {
		log.WithField("job", env("SLURM_JOB_ID")).Error("job of a namespace not understood")
		return exitBroken
	}
	job := uint32(number)
	c, err := loadConfig()
	if err != nil {
		log.WithError(err).Error("no view: configuration not read")
		return exitBroken
	}
	doors := gate.Directory{Path: GateDir}
	if !c.Storage.Namespaced() || !doors.Admitted(job) {
		return exitFine // the view is the node's, or the gate refuses the job anyway and says why
	}
	start, err := startOf(c.Cluster, job)
	if err != nil {
		log.WithError(err).Error("no view")
		return exitBroken
	}
	n, err := newNode(log, start, env("SLURMD_NODENAME"))
	if err != nil {
		log.WithError(err).Error("no view")
		return exitBroken
	}
	if err = errors.Join(leave(), n.configure()); err == nil {
		defer n.client.Close()
		err = n.namespaceView(ctx, env("SLURM_NS"))
	}
	if err != nil {
		n.lost(ctx, refusalOf(err, subtree.CodeMake))
		return exitBroken
	}
	n.log.Info("view is made in the job's namespace")
	return exitFine
}

// startOf finds the start of a job whose view is due: the one whose prolog left a plan.
func startOf(cluster string, number uint32) (enclave.Job, error) {
	all, err := journal.List(RunDir, cluster)
	if err != nil {
		return enclave.Job{}, err
	}
	for _, key := range all {
		if _, err = os.Lstat(filepath.Join(RunDir, key.Directory(), planFile)); key.Job != number || err != nil {
			continue
		}
		record, err := journal.Load(RunDir, key)
		if err != nil {
			return enclave.Job{}, err
		}
		return enclave.Job{JobKey: key, UID: record.UID, User: fmt.Sprint(record.UID)}, nil
	}
	return enclave.Job{}, fmt.Errorf("find the view of job %d: no prolog has planned one", number)
}

// namespaceView makes the view in the pinned namespace and tells the gate where it is.
func (n *node) namespaceView(ctx context.Context, pin string) error {
	detail, err := file.Trust{}.Read(filepath.Join(n.directory(), planFile), planLimit)
	if err != nil {
		return err
	}
	plan, err := subtree.ParseDetail(string(detail))
	if err != nil {
		return err
	}
	ns, err := namespace.Open(pin)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	if _, err = heardInside(ns.Run(ctx, "/proc/self/exe", []string{insideWord}, detail)); err != nil {
		return err
	}
	if err = subtreeRoom().Outside(ctx, plan); err != nil {
		return err
	}
	return n.gate.WriteView(gate.View{Job: n.job.Job, Boot: n.boot, Namespace: ns.ID})
}

// lost takes GO back, says why, and tells the verifier, which ends the job on all nodes.
func (n *node) lost(ctx context.Context, r *enclave.Refusal) {
	r.Node = n.name
	n.deny(r)
	if n.client == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if _, err := n.client.Lost(ctx, api.BrokenRequest{NodeRequest: n.request(), Refusal: *r}); err != nil {
		n.log.WithError(err).Error("verifier not told that there is no view")
	}
}
