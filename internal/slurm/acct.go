package slurm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Record is what accounting has of one start of a job.
type Record struct {
	Job       uint32
	Name      string // "4_7" for an element of an array, else the number
	User      string
	UID       uint32
	Account   string
	Partition string
	State     string // as sacct prints it: "CANCELLED by 2001"
	ExitCode  string // "0:0"
	Submit    time.Time
	Start     *time.Time // nil: it never got nodes
	End       *time.Time // nil: not yet
	Elapsed   time.Duration
	CPUTime   time.Duration
	NodeCount int
	Nodes     string  // hostlist
	Restart   *uint32 // where sacct tells it (24.11), else nil
	JobName   string  // the user's own: any bytes
}

// Want says which records are asked for.
type Want struct {
	Since      time.Time
	UID        *uint32 // of this user alone; nil: of all that Slurm shows the caller
	Accounts   []string
	Partitions []string
}

// recordColumns are what is asked for. The one that a user writes stands last.
func recordColumns(restarts bool) []string {
	columns := []string{
		"JobIDRaw", "JobID", "User", "UID", "Account", "Partition", "State", "ExitCode", "Submit", "Start", "End", "ElapsedRaw", "CPUTimeRAW",
		"NNodes", "NodeList",
	}
	if restarts {
		columns = append(columns, "Restarts")
	}
	return append(columns, "JobName")
}

// sacctTime is how sacct prints and reads times. The Runner must run it with TZ=UTC.
const sacctTime = "2006-01-02T15:04:05"

// Records lists starts of jobs that ran, waited or ended at or after a time, each start of a requeued job
// by itself. The Runner must run with TZ=UTC. Slurm decides what the caller is shown.
//
// A job's name may hold separators and whole forged lines, so each call has a separator of its own, which nobody
// could know when the job was submitted.
func (c *CLI) Records(ctx context.Context, w Want) ([]Record, error) {
	restarts, err := c.tellsRestarts(ctx)
	if err != nil {
		return nil, err
	}
	separator := "|" + rand.Text() + "|"
	columns := recordColumns(restarts)
	args := []string{
		"-D", "-X", "-n", "-p", "--delimiter=" + separator, "-S", w.Since.UTC().Format(sacctTime), "-E", "now", "-o", strings.Join(columns, ","),
	}
	if w.UID != nil {
		args = append(args, "-u", strconv.FormatUint(uint64(*w.UID), 10))
	} else {
		args = append(args, "-a")
	}
	for _, list := range []struct {
		flag string
		of   []string
	}{{"-A", w.Accounts}, {"-r", w.Partitions}} {
		if len(list.of) == 0 {
			continue
		}
		if i := slices.IndexFunc(list.of, func(s string) bool { return s == "" || strings.ContainsAny(s, ", \t\n") }); i >= 0 {
			return nil, fmt.Errorf("read accounting: %q is no name", list.of[i])
		}
		args = append(args, list.flag, strings.Join(list.of, ","))
	}
	out, err := c.run.Run(ctx, "sacct", args...)
	if err != nil {
		return nil, fmt.Errorf("read accounting: %w", classify(err))
	}
	return parseRecords(string(out), separator, columns)
}

// tellsRestarts asks sacct whether it has the column.
func (c *CLI) tellsRestarts(ctx context.Context) (bool, error) {
	out, err := c.run.Run(ctx, "sacct", "-e")
	if err != nil {
		return false, fmt.Errorf("ask sacct for its columns: %w", classify(err))
	}
	return slices.Contains(strings.Fields(string(out)), "Restarts"), nil
}

// parseRecords reads columns that are all closed by the separator, and records by a newline more.
func parseRecords(out, separator string, columns []string) ([]Record, error) {
	fields := strings.Split(out, separator)
	if rest := fields[len(fields)-1]; rest != "" && rest != "\n" {
		return nil, errors.New("read accounting: sacct's last record has no end")
	}
	fields = fields[:len(fields)-1]
	if len(fields)%len(columns) != 0 {
		return nil, fmt.Errorf("read accounting: sacct printed %d fields, which is no multiple of %d", len(fields), len(columns))
	}
	records := make([]Record, 0, len(fields)/len(columns))
	for f := range slices.Chunk(fields, len(columns)) {
		if len(records) > 0 {
			id, ok := strings.CutPrefix(f[0], "\n")
			if !ok {
				return nil, fmt.Errorf("read accounting: sacct's record %d has no end", len(records))
			}
			f[0] = id
		}
		r, err := recordOf(f, columns)
		if err != nil {
			return nil, fmt.Errorf("read accounting: record %d: %w", len(records)+1, err)
		}
		records = append(records, r)
	}
	return records, nil
}

// reading takes the fields of a record one by one and keeps what was wrong.
type reading struct {
	fields, columns []string
	errs            []error
}

func (r *reading) text(column string) string {
	return r.fields[slices.Index(r.columns, column)]
}

func (r *reading) number(column string, most uint64) uint64 {
	n, err := strconv.ParseUint(r.text(column), 10, 64)
	if err != nil || n > most {
		r.errs = append(r.errs, fmt.Errorf("column %s: %q is no number", column, r.text(column)))
	}
	return n
}

func (r *reading) seconds(column string) time.Duration {
	return time.Duration(r.number(column, math.MaxInt64/uint64(time.Second))) * time.Second
}

// instant is nil for a time that has not come. A job that was cancelled while it waited has none.
func (r *reading) instant(column string) *time.Time {
	s := r.text(column)
	if s == "" || s == "Unknown" || s == "None" {
		return nil
	}
	t, err := time.ParseInLocation(sacctTime, s, time.UTC)
	if err != nil {
		r.errs = append(r.errs, fmt.Errorf("column %s: %q is no time", column, s))
		return nil
	}
	return &t
}

func recordOf(fields, columns []string) (Record, error) {
	r := &reading{fields: fields, columns: columns}
	out := Record{
		Job: uint32(r.number("JobIDRaw", math.MaxUint32)), Name: r.text("JobID"), User: r.text("User"), UID: uint32(r.number("UID", math.MaxUint32)),
		Account: r.text("Account"), Partition: r.text("Partition"), State: r.text("State"), ExitCode: r.text("ExitCode"),
		Start: r.instant("Start"), End: r.instant("End"), Elapsed: r.seconds("ElapsedRaw"), CPUTime: r.seconds("CPUTimeRAW"),
		NodeCount: int(r.number("NNodes", math.MaxInt32)), Nodes: r.text("NodeList"), JobName: r.text("JobName"),
	}
	if out.Nodes == "None assigned" {
		out.Nodes = ""
	}
	if t := r.instant("Submit"); t != nil {
		out.Submit = *t
	}
	if slices.Contains(columns, "Restarts") {
		n := uint32(r.number("Restarts", math.MaxUint32))
		out.Restart = &n
	}
	return out, errors.Join(r.errs...)
}
