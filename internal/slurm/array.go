package slurm

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// arrayColumns tell which element of which array a job is. They are asked for alone, so that a job that
// can't be read otherwise can still be ended.
var arrayColumns = []string{"JobID", "ArrayJobID", "ArrayTaskID"}

// target is what Slurm takes for this one job. Every element of an array has a number of its own, but
// one of them, the last to be split off, has the array's: commands that change something and are given that
// number alone act on all elements, the running and, with requeue, the completed [tried]. ARRAY_TASK
// is the one. The record of the elements that still wait together is ARRAY_[TASKS].
func (c *CLI) target(ctx context.Context, id uint32) (string, error) {
	out, err := c.run.Run(ctx, "squeue", "-h", "-a", "-t", "all", "-j", decimal(id), "-O", format(arrayColumns))
	if err != nil {
		return "", classify(err)
	}
	return parseTarget(out, id)
}

// parseTarget finds the one line of the job; lines of other elements stand beside it.
func parseTarget(out []byte, id uint32) (string, error) {
	found := ""
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "|")
		if len(f) != len(arrayColumns)+1 || f[len(arrayColumns)] != "" {
			return "", fmt.Errorf("squeue printed %d columns, want %d", len(f)-1, len(arrayColumns))
		}
		if f[0] != decimal(id) {
			continue
		}
		if found != "" {
			return "", errors.New("squeue printed it twice")
		}
		var err error
		if found, err = spellTarget(f[0], f[1], f[2]); err != nil {
			return "", err
		}
	}
	if found == "" {
		return "", ErrNoJob
	}
	return found, nil
}

// spellTarget reads "N/A", "7" or "1-3,5%2"; a list that squeue has shortened ends in "...".
func spellTarget(id, array, task string) (string, error) {
	if task == "N/A" {
		return id, nil
	}
	if n, err := strconv.ParseUint(array, 10, 32); err != nil || strconv.FormatUint(n, 10) != array {
		return "", fmt.Errorf("column ArrayJobID: %q is no number", array)
	}
	if n, err := strconv.ParseUint(task, 10, 32); err == nil && strconv.FormatUint(n, 10) == task {
		return array + "_" + task, nil
	}
	tasks, _, _ := strings.Cut(task, "%") // how many may run at once
	if tasks == "" || strings.Trim(tasks, "0123456789,-:") != "" {
		return "", fmt.Errorf("column ArrayTaskID: %q does not say which elements wait", task)
	}
	return array + "_[" + tasks + "]", nil
}

// storedTarget is what sacctmgr takes for this one job's record: it, too, takes an array's number for all
// elements [tried]. slurmctld may have forgotten the job, so accounting is asked. Of a job that was requeued
// sacct prints the latest start alone.
func (c *CLI) storedTarget(ctx context.Context, id uint32) (string, error) {
	out, err := c.run.Run(ctx, "sacct", "-X", "-n", "-P", "-j", decimal(id), "-o", "JobIDRaw,JobID")
	if err != nil {
		return "", classify(err)
	}
	found := ""
	for line := range strings.Lines(string(out)) {
		raw, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "|")
		if !ok || strings.Contains(name, "|") {
			return "", errors.New("sacct printed other columns than two")
		}
		if raw != decimal(id) {
			continue
		}
		if found != "" {
			return "", errors.New("sacct printed it twice")
		}
		found = raw
		if array, task, element := strings.Cut(name, "_"); element {
			if found, err = spellTarget(raw, array, strings.Trim(task, "[]")); err != nil {
				return "", err
			}
		}
	}
	switch {
	case found == "":
		return "", ErrNoJob
	case found == decimal(id):
		name, err := c.target(ctx, id)
		return found, known(name == found, err)
	}
	return found, nil
}

// errBehind says that a record in accounting would be taken for the whole array's.
var errBehind = errors.New("accounting does not know yet that the job is an element of an array")

// known is nil when slurmctld, too, knows a job by its number alone, or not any more. Accounting hears of
// an array's elements a moment later [tried]: until then the number would change the records of all of them.
func known(alone bool, err error) error {
	switch {
	case errors.Is(err, ErrNoJob):
		return nil
	case err == nil && !alone:
		return errBehind
	}
	return err
}

// byNumber is true when the server's calls on this number act on this job alone. They drop the task of
// ARRAY_TASK and then act on the whole array, as the source of slurmrestd has it, so the one element that
// needs it is left to the commands. What the server does not tell, squeue does.
func (r *REST) byNumber(ctx context.Context, id uint32) (bool, error) {
	a, ok, err := r.try(ctx, DutyJob, decimal(id), nil)
	if ok {
		if err != nil {
			return false, err
		}
		var j jobAnswer
		if j, err = a.job(id); err != nil {
			return false, err
		}
		if j.ArrayJob != nil {
			return !j.ArrayJob.Set || j.ArrayJob.Value != uint64(id), nil
		}
	}
	target, err := r.cli.target(ctx, id)
	return target == decimal(id), err
}

// tryOf is try for what changes one job, and no other element of its array.
func (r *REST) tryOf(ctx context.Context, d Duty, id uint32, body any) (ok bool, err error) {
	o, err := r.offered(ctx)
	if err != nil {
		return true, err
	}
	if !o.has(d) {
		return false, nil
	}
	ask := r.byNumber
	if d == DutyStore {
		ask = r.storedByNumber
	}
	if alone, errAsked := ask(ctx, id); errAsked != nil || !alone {
		return errAsked != nil, errAsked
	}
	_, ok, err = r.try(ctx, d, decimal(id), body)
	return ok, err
}

// storedByNumber is byNumber for the record in accounting.
func (r *REST) storedByNumber(ctx context.Context, id uint32) (bool, error) {
	a, ok, err := r.try(ctx, DutyStoredComment, decimal(id), nil)
	if ok {
		if errors.Is(err, errEmpty) {
			err = ErrNoJob
		}
		var j storedAnswer
		if err == nil {
			j, err = a.latest(id)
		}
		if err != nil {
			return false, err
		}
		if j.Array.Job != nil {
			element := j.Array.Job.Set && j.Array.Job.Value != 0
			if !element {
				err = known(r.byNumber(ctx, id))
			}
			return !element || j.Array.Job.Value != uint64(id), err
		}
	}
	target, err := r.cli.storedTarget(ctx, id)
	return target == decimal(id), err
}
