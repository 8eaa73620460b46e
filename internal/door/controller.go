package door

import (
	"context"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/host/program"
	"github.com/slurm-enclave/slurm-enclave/internal/job"
	"github.com/slurm-enclave/slurm-enclave/internal/site/settle"
	"github.com/slurm-enclave/slurm-enclave/internal/slurm"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/client"
)

// How long the controller's scripts wait for enclaved. A job that waits in CONFIGURING for a
// verifier that restarts is better than one that is requeued at once, over and over.
const (
	registerTimeout = 15 * time.Second
	settleTimeout   = 30 * time.Second // for its answer
	settlePatience  = 5 * time.Second  // for it to be there
	aloneTimeout    = 30 * time.Second // for Slurm's, without it
)

// concerns says whether a controller's script has anything to do. It opens nothing, so that a
// broken enclave.yaml never touches the jobs of other partitions.
func concerns(partitions []string, env func(string) string) bool {
	return slices.Contains(partitions, env("SLURM_JOB_PARTITION"))
}

// ControllerProlog registers the job and returns the exit status of PrologSlurmctld: 1 requeues
// the job and touches no node. Slurm takes a script that was killed for a success; then nothing
// is registered, and the nodes are told so.
func ControllerProlog(ctx context.Context, log *logrus.Logger, partitions []string, env func(string) string) int {
	if !concerns(partitions, env) {
		return exitFine
	}
	j, where, err := job.FromPrologEnv(env)
	if err != nil {
		log.WithError(err).Error("job not registered")
		return exitBroken
	}
	entry := log.WithField("job", j.Directory())
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	err = register(ctx, api.RegisterRequest{Job: j, HetJob: where.HetJob})
	if r, ok := enclave.AsRefusal(err); ok && r.Fault == enclave.FaultRequest {
		entry.WithField("code", r.Code).Warn("job refused: " + r.Reason)
		return turnAway(ctx, entry, slurm.NewCLI(program.Runner{}), j.Job, r)
	}
	if err != nil {
		entry.WithError(err).Error("job not registered")
		return exitBroken
	}
	entry.Info("job registered")
	return exitFine
}

// waiter is Slurm as far as it talks to people who wait for a job.
type waiter interface {
	Job(ctx context.Context, id uint32) (slurm.Job, error)
	Notify(ctx context.Context, id uint32, text string) error
}

// turnAway ends a job that can never run. Exit status 1 would put a batch job back into the queue
// for ever: its nodes are refused with this reason instead, and the gate makes it fail. An
// interactive job is ended by that status, and srun or salloc is told why first.
func turnAway(ctx context.Context, log *logrus.Entry, s waiter, id uint32, r *enclave.Refusal) int {
	j, err := s.Job(ctx, id)
	if err != nil || j.Batch {
		return exitFine
	}
	if err = s.Notify(ctx, id, "enclave: "+r.Error()); err != nil {
		log.WithError(err).Warn("nobody was told")
	}
	return exitBroken
}

func register(ctx context.Context, r api.RegisterRequest) error {
	c, err := controllerClient(registerTimeout)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Register(ctx, r)
	return err
}

func controllerClient(patience time.Duration) (*client.Client, error) {
	cfg, err := loadConfig()
	if err != nil {
		return nil, err
	}
	return client.New(client.Options{Socket: cfg.Controller.Socket, Patience: patience}), nil
}

// ControllerEpilog settles a start: enclaved requeues a job that never got its GO through
// nobody's fault. With enclaved away this does it, from what enclaved has left on the disk.
func ControllerEpilog(ctx context.Context, log *logrus.Logger, partitions []string, env func(string) string) int {
	if !concerns(partitions, env) {
		return exitFine
	}
	j, where, err := job.FromPrologEnv(env)
	if err != nil {
		log.WithError(err).Error("job not settled")
		return exitBroken
	}
	entry := log.WithField("job", j.Directory())
	return over(ctx, entry,
		func(ctx context.Context) error { return settled(ctx, j) },
		func(ctx context.Context) (settle.Outcome, error) { return settleAlone(ctx, j, where.Exit) })
}

// over has enclaved settle a start, or settles it alone. Each has a time of its own: an enclaved that
// takes the call and stands still must not use up what Slurm is to be asked in.
func over(ctx context.Context, log *logrus.Entry, ask func(context.Context) error, alone func(context.Context) (settle.Outcome, error)) int {
	asking, done := context.WithTimeout(ctx, settleTimeout)
	defer done()
	err := ask(asking)
	if err == nil {
		return exitFine
	}
	log.WithError(err).Warn("enclaved does not settle the job")
	ctx, cancel := context.WithTimeout(ctx, aloneTimeout)
	defer cancel()
	out, err := alone(ctx)
	if err != nil {
		log.WithError(err).Error("job not settled")
		return exitBroken
	}
	log.WithField("requeued", out.Requeue).Info("settled without enclaved: " + out.Why)
	return exitFine
}

func settled(ctx context.Context, j enclave.Job) error {
	c, err := controllerClient(settlePatience)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Settled(ctx, j.JobKey)
	return err
}

// settleAlone decides from what enclaved has left on the disk and how the job ended.
func settleAlone(ctx context.Context, j enclave.Job, exit job.Exit) (settle.Outcome, error) {
	state, most := StateDir, config.Default().Controller.MaxRestarts
	if cfg, err := loadConfig(); err == nil {
		state, most = cfg.Controller.State, cfg.Controller.MaxRestarts
	}
	return settle.Settle(ctx, slurm.NewCLI(program.Runner{}), state, most, j.JobKey, exit)
}
