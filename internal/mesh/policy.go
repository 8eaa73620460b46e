package mesh

import (
	"context"
	"fmt"
	"slices"

	"github.com/hashicorp/go-multierror"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

func upRoutes(ctx context.Context, k Kernel, d Device) error {
	table := Table(jobOf(d))
	have, err := k.Routes.Routes(ctx, table)
	if err != nil {
		return err
	}
	if err = change(ctx, have, d.Routes, k.Routes.AddRoutes, k.Routes.DeleteRoute); err != nil {
		return err
	}
	if have, err = k.Routes.Routes(ctx, table); err != nil {
		return err
	}
	return same("routes", have, d.Routes)
}

func upRules(ctx context.Context, k Kernel, d Device) error {
	job := jobOf(d)
	have, err := rulesOf(ctx, k, job)
	if err != nil {
		return err
	}
	if err = change(ctx, have, d.Rules, each(k.Rules.AddRule), k.Rules.DeleteRule); err != nil {
		return err
	}
	if have, err = rulesOf(ctx, k, job); err != nil {
		return err
	}
	return same("rules", have, d.Rules)
}

// change adds what is wanted and not there, and then deletes what is there and not wanted.
func change[T comparable](ctx context.Context, have, want []T, add func(context.Context, []T) error, remove func(context.Context, T) error) error {
	if list := missing(want, have); len(list) > 0 {
		if err := add(ctx, list); err != nil {
			return err
		}
	}
	for _, x := range missing(have, want) {
		if err := remove(ctx, x); err != nil {
			return fmt.Errorf("delete %v: %w", x, err)
		}
	}
	return nil
}

// each adds one after the other.
func each[T any](add func(context.Context, T) error) func(context.Context, []T) error {
	return func(ctx context.Context, list []T) error {
		for _, x := range list {
			if err := add(ctx, x); err != nil {
				return fmt.Errorf("add %v: %w", x, err)
			}
		}
		return nil
	}
}

// Down deletes the interface, the rules and the routes of a job, whether Up ran, half ran or
// never ran, and reads back that nothing is left. The link goes first and takes the peers
// with it: a thousand peers deleted one by one take half a minute.
func Down(ctx context.Context, k Kernel, job uint32) error {
	var errs *multierror.Error
	if err := k.Links.DeleteLink(ctx, Name(job)); err != nil {
		errs = multierror.Append(errs, fmt.Errorf("mesh: delete %s: %w", Name(job), err))
	}
	rules, err := rulesOf(ctx, k, job)
	if err != nil {
		errs = multierror.Append(errs, fmt.Errorf("mesh: read rules: %w", err))
	}
	for _, r := range rules {
		if err = k.Rules.DeleteRule(ctx, r); err != nil {
			errs = multierror.Append(errs, fmt.Errorf("mesh: delete %s: %w", r, err))
		}
	}
	routes, err := k.Routes.Routes(ctx, Table(job))
	if err != nil {
		errs = multierror.Append(errs, fmt.Errorf("mesh: read routes: %w", err))
	}
	for _, r := range routes {
		if err := k.Routes.DeleteRoute(ctx, r); err != nil {
			errs = multierror.Append(errs, fmt.Errorf("mesh: delete %s: %w", r, err))
		}
	}
	if err := Absent(ctx, k, job); err != nil {
		errs = multierror.Append(errs, err)
	}
	return errs.ErrorOrNil()
}

// Absent reads back that nothing of a job's mesh is there.
func Absent(ctx context.Context, k Kernel, job uint32) error {
	link, err := k.Links.Link(ctx, Name(job))
	if err != nil {
		return fmt.Errorf("mesh: read back: %w", err)
	}
	rules, err := rulesOf(ctx, k, job)
	if err != nil {
		return fmt.Errorf("mesh: read back: %w", err)
	}
	routes, err := k.Routes.Routes(ctx, Table(job))
	if err != nil {
		return fmt.Errorf("mesh: read back: %w", err)
	}
	if link.Name != "" || len(rules) != 0 || len(routes) != 0 {
		return enclave.Refuse(CodeLeftover, enclave.FaultNode, "after teardown of job %d: link %q, %d rules, %d routes", job, link.Name, len(rules), len(routes))
	}
	return nil
}

func rulesOf(ctx context.Context, k Kernel, job uint32) ([]Rule, error) {
	all, err := k.Rules.Rules(ctx)
	return slices.DeleteFunc(all, func(r Rule) bool { return r.Mark != Mark(job) }), err
}

// jobOf is the job's part of the device's numbers.
func jobOf(d Device) uint32 { return d.Tunnel.FwMark & jobBits }

// missing are the things of want that have has not.
func missing[T comparable](want, have []T) []T {
	there := make(map[T]struct{}, len(have))
	for _, h := range have {
		there[h] = struct{}{}
	}
	return slices.DeleteFunc(slices.Clone(want), func(w T) bool { _, ok := there[w]; return ok })
}

func same[T comparable](what string, have, want []T) error {
	if len(have) != len(want) || len(missing(want, have)) != 0 {
		return enclave.Refuse(CodeReadBack, enclave.FaultNode, "the kernel has %d %s, want %d: missing %v, foreign %v",
			len(have), what, len(want), missing(want, have), missing(have, want))
	}
	return nil
}
