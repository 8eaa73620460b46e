package door

import (
	"context"
	"errors"
	"flag"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/sirupsen/logrus"

	"github.com/slurm-enclave/slurm-enclave/internal/job"
)

// Side is one of the two programs: what it does on the controller, and what on a node.
type Side struct {
	name       string
	controller func(context.Context, *logrus.Logger, []string, func(string) string) int
	node       func(context.Context, *logrus.Logger, func(string) string) int
}

// Prolog is the front door.
func Prolog() Side { return Side{"enclave-prolog", ControllerProlog, NodeProlog} }

// Epilog is the back door.
func Epilog() Side { return Side{"enclave-epilog", ControllerEpilog, NodeEpilog} }

// Run is a program's main: args and environment in, exit status out. A node without the marker
// costs the exec and this look at one file.
func Run(ctx context.Context, args []string, env func(string) string, side Side) int {
	controller := job.Script(env("SLURM_SCRIPT_CONTEXT")).OnController()
	if !controller {
		if _, err := os.Lstat(Marker); errors.Is(err, fs.ErrNotExist) {
			return exitFine
		}
	}
	// The other end of our streams is slurmd's. When that is killed the work goes on: a word that nobody
	// reads must not end it half-way.
	signal.Ignore(syscall.SIGPIPE)
	log, done := openLog()
	defer done()
	if err := leave(); err != nil {
		log.WithError(err).Error("working directory not left")
		return exitBroken
	}
	var partitions partitionList
	flags := flag.NewFlagSet(side.name, flag.ContinueOnError)
	flags.Var(&partitions, "partition", "an enclave `partition`; may be given again (controller only)")
	if err := flags.Parse(args[1:]); err != nil {
		return 2
	}
	if controller {
		return side.controller(ctx, log, partitions, env)
	}
	return side.node(ctx, log, env)
}

// leave goes where no job's view is. Who was started in /tmp while a job's own stands there, by a
// slurmd or an admin who was there, would keep it from being taken down.
func leave() error { return os.Chdir("/") }

type partitionList []string

// String lists the partitions.
func (p *partitionList) String() string { return strings.Join(*p, ",") }

// Set adds one.
func (p *partitionList) Set(s string) error {
	if s == "" {
		return errors.New("empty name")
	}
	*p = append(*p, s)
	return nil
}

// LogFile holds what prologs and epilogs did: slurmd keeps their output only when they fail.
const LogFile = "/var/log/slurm-enclave.log"

// openLog appends to LogFile, or writes to standard error where that can't be had.
func openLog() (log *logrus.Logger, done func()) {
	log = logrus.New()
	log.SetFormatter(&logrus.TextFormatter{DisableColors: true, FullTimestamp: true})
	f, err := os.OpenFile(LogFile, os.O_APPEND|os.O_CREATE|os.O_WRONLY|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		log.SetOutput(os.Stderr)
		return log, func() {}
	}
	log.SetOutput(io.MultiWriter(f, os.Stderr))
	return log, func() { _ = f.Close() }
}
