package door

import (
	"context"
	"errors"
	"fmt"

	"github.com/sirupsen/logrus"

	"github.com/slurm-enclave/slurm-enclave/internal/closed"
	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/fence"
	"github.com/slurm-enclave/slurm-enclave/internal/ground"
	"github.com/slurm-enclave/slurm-enclave/internal/host/filter"
	"github.com/slurm-enclave/slurm-enclave/internal/host/process"
	"github.com/slurm-enclave/slurm-enclave/internal/host/survey"
	"github.com/slurm-enclave/slurm-enclave/internal/journal"
	"github.com/slurm-enclave/slurm-enclave/internal/stage"
)

// Host is this node outside of any job, for `enclave host`.
func Host(log *logrus.Logger, configFile string) (closed.Node, error) {
	c, err := loadConfigFrom(configFile)
	if err != nil {
		return closed.Node{}, err
	}
	h := closedNode(c)
	h.Clean = func(ctx context.Context) error {
		if err := findPlaces(ctx, c); err != nil {
			return err
		}
		return closeHost(ctx, log, c)
	}
	return h, nil
}

// Sound looks at this node as a job's prolog would, and changes nothing.
func Sound(ctx context.Context, configFile string) []enclave.Check {
	c, err := loadConfigFrom(configFile)
	if err != nil {
		return []enclave.Check{{Name: "configuration", Result: enclave.CheckFail, Reason: err.Error()}}
	}
	checks := []enclave.Check{passes("gate", gateOf(c)), passes("socket_families", closedFamilies(c)), passes("devices", closedFabrics()), passes("processes", nobodyThere())}
	return append(checks, closedNode(c).Check(ctx)...)
}

func passes(name string, err error) enclave.Check {
	if err != nil {
		return enclave.Check{Name: name, Result: enclave.CheckFail, Reason: err.Error()}
	}
	return enclave.Check{Name: name, Result: enclave.CheckPass}
}

// nobodyThere is an error for processes that the prolog would end: between jobs there are none.
func nobodyThere() error {
	left, err := survey.Foreign(uidMin, nil)
	if err != nil {
		return err
	}
	if r := ground.StillForeign(left); r != nil {
		return r
	}
	return nil
}

// closeHost puts a node into its closed state: what a crash left is taken down, and the closed
// fence stands before slurmd takes a job.
func closeHost(ctx context.Context, log *logrus.Logger, c config.Config) error {
	if err := errors.Join(leave(), runDirs()); err != nil {
		return err
	}
	left, err := journal.List(RunDir, c.Cluster)
	if err != nil {
		return err
	}
	for _, key := range left {
		record, damage := journal.Load(RunDir, key)
		if damage != nil {
			log.WithError(damage).Warn("journal not readable; everything it may name is taken down")
		}
		record.JobKey = key
		n := &node{log: log.WithField("job", key.Directory()), config: c, phases: map[string]int64{}}
		if err = n.cleanJob(ctx, record); err != nil {
			return fmt.Errorf("clean job %s: %w", key.Directory(), err)
		}
	}
	table, err := ClosedFence(c)
	if err != nil {
		return err
	}
	return fence.Up(ctx, filter.Kernel{}, table)
}

// cleanJob takes down what a dead job left, from its journal's header: whose it was is all that
// going down needs to know.
func (n *node) cleanJob(ctx context.Context, record journal.Record) error {
	dead := &node{
		log: n.log.WithField("dead", record.Directory()), config: n.config, phases: map[string]int64{},
		job: enclave.Job{JobKey: record.JobKey, UID: record.UID}, gate: n.gate,
	}
	var err error
	if dead.subuids, err = process.SubordinateIDs(fmt.Sprint(record.UID), record.UID, uidMin); err != nil {
		return err
	}
	if err := stage.Down(ctx, dead.rooms(), nil); err != nil {
		return err
	}
	dead.log.Info("what a dead job left is taken down")
	return removeJournal(record.JobKey)
}
