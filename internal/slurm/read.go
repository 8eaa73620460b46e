package slurm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/job"
)

// jobColumns are columns without free text. AllocNodes comes from the client's request and is
// the only one that a hand-made client could fill with separators: it stands last and must be
// a host name.
var jobColumns = []string{
	"JobID", "State", "Restartcnt", "Requeue", "BatchFlag", "UserID", "TimeLimit", "Partition", "Account",
	"NodeList", "exit_code", "AllocNodes",
}

// Job reads one job; ErrNoJob when Slurm has never known it or has forgotten it.
func (c *CLI) Job(ctx context.Context, id uint32) (Job, error) {
	out, err := c.run.Run(ctx, "squeue", "-h", "-a", "-t", "all", "-j", decimal(id), "-O", format(jobColumns))
	if err != nil {
		return Job{}, fmt.Errorf("read job %d: %w", id, classify(err))
	}
	j, err := parseJob(out, id)
	if err != nil {
		return Job{}, fmt.Errorf("read job %d: %w", id, err)
	}
	return j, nil
}

// format closes every column with "|" instead of padding or cutting it to a width.
func format(columns []string) string { return strings.Join(columns, ":|,") + ":|" }

// parseJob finds the one line of the job. The elements of a job array share -j, so there may be
// lines of other jobs; a second line for this job is a forgery, and so is any line of another
// shape.
func parseJob(out []byte, id uint32) (Job, error) {
	found := 0
	var j Job
	for line := range strings.Lines(string(out)) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "|")
		if len(fields) != len(jobColumns)+1 || fields[len(jobColumns)] != "" {
			return Job{}, fmt.Errorf("squeue printed %d columns, want %d", len(fields)-1, len(jobColumns))
		}
		if fields[0] != decimal(id) {
			continue
		}
		var err error
		if j, err = jobOf(fields); err != nil {
			return Job{}, err
		}
		found++
	}
	switch found {
	case 1:
		return j, nil
	case 0:
		return Job{}, ErrNoJob
	}
	return Job{}, fmt.Errorf("squeue printed it %d times", found)
}

func jobOf(f []string) (Job, error) {
	var errs []error
	u32 := func(i int) uint32 {
		n, err := strconv.ParseUint(f[i], 10, 32)
		if err != nil {
			errs = append(errs, fmt.Errorf("column %s: %q is no number", jobColumns[i], f[i]))
		}
		return uint32(n)
	}
	flag := func(i int) bool {
		if f[i] != "0" && f[i] != "1" {
			errs = append(errs, fmt.Errorf("column %s: %q is neither 0 nor 1", jobColumns[i], f[i]))
		}
		return f[i] == "1"
	}
	j := Job{
		ID: u32(0), State: f[1], Restarts: u32(2), Requeue: flag(3), UID: u32(5),
		Batch:     u32(4) > 0, // it counts a batch job's launches that failed: 2 after the first
		Partition: f[7], Account: null(f[8]), Nodes: null(f[9]),
	}
	if f[1] == "" || strings.Trim(f[1], "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") != "" {
		errs = append(errs, fmt.Errorf("column State: %q is no state", f[1]))
	}
	var errLimit, errExit error
	j.TimeLimit, errLimit = parseLimit(f[6])
	j.ExitCode, errExit = parseExit(f[10])
	errs = append(errs, errLimit, errExit)
	if job.CheckNodeName(f[11]) == nil {
		j.AllocNode = f[11]
	}
	return j, errors.Join(errs...)
}

// parseExit reads a wait status as 22.05 prints it, one number, or as later releases do, "exit:signal".
func parseExit(s string) (uint32, error) {
	code, signal, pair := strings.Cut(s, ":")
	if !pair {
		code, signal = "0", s
	}
	hi, errCode := strconv.ParseUint(code, 10, 8)
	lo, errSignal := strconv.ParseUint(signal, 10, 32)
	if errors.Join(errCode, errSignal) != nil || pair && lo > 0xff {
		return 0, fmt.Errorf("column exit_code: %q is no wait status", s)
	}
	return uint32(hi)<<8 | uint32(lo), nil
}

// parseLimit reads "[days-][[hours:]minutes:]seconds" as squeue prints it. A year stands for more: a limit that
// nobody lives to see must not keep its job from being read and ended.
func parseLimit(s string) (time.Duration, error) {
	switch s {
	case "UNLIMITED", "NOT_SET", "Partition_Limit", "INVALID":
		return 0, nil
	}
	days, rest, hasDays := strings.Cut(s, "-")
	if !hasDays {
		days, rest = "0", s
	}
	parts := strings.Split(days+":"+strings.Repeat("0:", max(0, 2-strings.Count(rest, ":")))+rest, ":")
	units := []time.Duration{24 * time.Hour, time.Hour, time.Minute, time.Second}
	if len(parts) != len(units) {
		return 0, fmt.Errorf("column TimeLimit: %q is no time", s)
	}
	const most = maxMinutes * time.Minute
	var sum time.Duration
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("column TimeLimit: %q is no time", s)
		}
		sum += time.Duration(min(n, uint64(most/units[i]))) * units[i]
	}
	return min(sum, most), nil
}

// AdminComment reads the text and says whether it must now be changed in the accounting
// database (finished) or in slurmctld.
func (c *CLI) AdminComment(ctx context.Context, id uint32) (text string, finished bool, err error) {
	j, err := c.Job(ctx, id)
	if err == nil && j.open() {
		text, err = c.liveComment(ctx, id)
		return text, false, err
	}
	if err != nil && !errors.Is(err, ErrNoJob) {
		return "", false, err
	}
	text, err = c.storedComment(ctx, id)
	return text, true, err
}

// liveComment asks for the text alone: whatever it holds, it cannot pass for another column.
func (c *CLI) liveComment(ctx context.Context, id uint32) (string, error) {
	out, err := c.run.Run(ctx, "squeue", "-h", "-a", "-t", "all", "-j", decimal(id), "-O", "JobID:|,admin_comment:|")
	if err != nil {
		return "", fmt.Errorf("read admin comment of job %d: %w", id, classify(err))
	}
	text, err := textOf(out, id, "|\n")
	if err != nil {
		return "", fmt.Errorf("read admin comment of job %d: %w", id, err)
	}
	return null(text), nil
}

// storedComment reads the latest start of the job: without -D sacct leaves the others out.
func (c *CLI) storedComment(ctx context.Context, id uint32) (string, error) {
	out, err := c.run.Run(ctx, "sacct", "-X", "-n", "-P", "-j", decimal(id), "-o", "JobIDRaw,AdminComment")
	if err != nil {
		return "", fmt.Errorf("read admin comment of job %d in accounting: %w", id, classify(err))
	}
	text, err := textOf(out, id, "\n")
	if err != nil {
		return "", fmt.Errorf("read admin comment of job %d in accounting: %w", id, err)
	}
	return text, nil
}

// textOf cuts the record "ID|text" out of the output. The records of other array elements
// begin at a line with another number and "|".
func textOf(out []byte, id uint32, end string) (string, error) {
	var text []byte
	inside, found := false, 0
	for line := range bytes.Lines(out) {
		number, rest, ok := bytes.Cut(line, []byte("|"))
		if _, err := strconv.ParseUint(string(number), 10, 32); ok && err == nil {
			inside = string(number) == decimal(id)
			if inside {
				found++
				text = append(text, rest...)
			}
			continue
		}
		if inside {
			text = append(text, line...)
		}
	}
	if found == 0 {
		return "", ErrNoJob
	}
	if found > 1 {
		return "", fmt.Errorf("printed %d times", found)
	}
	return string(bytes.TrimSuffix(text, []byte(end))), nil
}

// Node reads one node; a node of several partitions is printed once for each.
func (c *CLI) Node(ctx context.Context, name string) (Node, error) {
	if err := job.CheckNodeName(name); err != nil {
		return Node{}, fmt.Errorf("read node: %w", err)
	}
	out, err := c.run.Run(ctx, "sinfo", "-h", "-a", "-N", "-n", name, "-O", "NodeList:|,StateComplete:|,Reason:|")
	if err != nil {
		return Node{}, fmt.Errorf("read node %s: %w", name, classify(err))
	}
	return parseNode(out, name)
}

func parseNode(out []byte, name string) (Node, error) {
	first, _, _ := strings.Cut(string(out), "\n")
	if first == "" {
		return Node{}, fmt.Errorf("read node %s: %w", name, ErrNoNode)
	}
	got, rest, _ := strings.Cut(first, "|")
	state, reason, ok := strings.Cut(rest, "|")
	if got != name || !ok || !strings.HasSuffix(reason, "|") {
		return Node{}, fmt.Errorf("read node %s: sinfo printed another line", name)
	}
	reason = strings.TrimSuffix(reason, "|")
	if reason == "none" {
		reason = ""
	}
	return Node{Name: name, State: strings.Split(strings.ToLower(state), "+"), Reason: reason}, nil
}

// null is how squeue prints a text that is not set.
func null(s string) string {
	if s == "(null)" {
		return ""
	}
	return s
}

func decimal(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
