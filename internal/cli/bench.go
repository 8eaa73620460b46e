package cli

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slurm-enclave/slurm-enclave/internal/bench"
	"github.com/slurm-enclave/slurm-enclave/scripts"
)

// Benchmarks is what `enclave bench` runs programs with: Here as the caller on this machine, Lab
// the lab's own program.
type Benchmarks struct {
	Here bench.Shell
	Lab  func() (bench.Shell, error)
}

type benchFlags struct {
	lab, json      bool
	baseline, keep string
	baselineNet    string
	bench          bench.Bench
}

// NewBenchCommand is `enclave bench`.
func NewBenchCommand(with Benchmarks) *cobra.Command {
	c := command("bench", "Measure what an enclave costs", cobra.NoArgs)
	c.AddCommand(benchNetCommand(with))
	return c
}

func benchNetCommand(with Benchmarks) *cobra.Command {
	f := benchFlags{}
	c := command("net", "Compare the network between two nodes: in the clear, in an enclave, through OpenVPN", cobra.NoArgs)
	c.Long = `Submit the same small job to each partition in turn: MPI latency and bandwidth between two nodes, a
TCP stream by iperf3, and the processor time of what holds the tunnel. Print medians, spread, and what
can be concluded. Nodes that differ are not compared.

Rows: plain, conf (SEV without a tunnel), wireguard-userspace, wireguard-kernel, openvpn.

Exit status: 0 measured, 1 an error, 2 usage, 4 rows that can't be compared.`
	c.RunE = func(c *cobra.Command, _ []string) error { return f.run(c, with) }
	flags := c.Flags()
	flags.StringSliceVar(&f.bench.Partitions, "partition", []string{"cpu", "cpu-sev"}, "partitions to measure, those that are there")
	flags.IntVar(&f.bench.Repeat, "repeat", 5, "runs of each row, in turn")
	flags.IntVar(&f.bench.Seconds, "seconds", 3, "length of a run's TCP stream")
	flags.StringVar(&f.bench.Directory, "directory", "", "directory that the nodes see, too (the current one)")
	flags.StringVar(&f.bench.Program, "program", "", "MPI program with OSU's output, in place of our own")
	flags.BoolVar(&f.lab, "lab", false, "measure in the one-machine lab; bring it up if it is down")
	flags.StringVar(&f.baseline, "baseline", "", "compare with this, too: openvpn")
	flags.StringVar(&f.baselineNet, "baseline-net", "", "network of an OpenVPN that joins the first partition's nodes (without --lab)")
	flags.StringVar(&f.keep, "keep", "", "directory for the output of each run")
	flags.BoolVar(&f.json, "json", false, "print JSON")
	return c
}

func (f *benchFlags) run(c *cobra.Command, with Benchmarks) (err error) {
	if err = f.check(); err != nil {
		return &ExitError{ExitUsage, err}
	}
	says := func(text string) { _, _ = fmt.Fprintln(c.ErrOrStderr(), printable(text)) }
	b := &f.bench
	b.Slurm, b.Source = with.Here, scripts.Netbench
	b.Step = func(name string, repetition int) {
		says(fmt.Sprintf("run %d of %d: %s", repetition+1, b.Repeat, name))
	}
	b.Keep = f.keeper()
	if f.lab {
		program, errLab := with.Lab()
		if errLab != nil {
			return errLab
		}
		lab := &bench.Lab{Program: program, Says: says}
		defer func() { err = errors.Join(err, lab.Down(c.Context())) }()
		if err = lab.Up(c.Context(), b); err != nil {
			return err
		}
		if f.baseline != "" {
			err = lab.Baseline(c.Context(), b)
		}
	} else {
		err = f.local()
	}
	if err != nil {
		return err
	}
	return f.print(c, b)
}

func (f *benchFlags) print(c *cobra.Command, b *bench.Bench) error {
	r, err := b.Net(c.Context())
	if err != nil {
		return err
	}
	if f.json {
		err = printJSON(c.OutOrStdout(), r)
	} else {
		err = printText(c.OutOrStdout(), clean(r.Screen()))
	}
	if err == nil && !r.Comparable {
		err = &ExitError{Code: ExitUnknown} // the screen has said it
	}
	return err
}

// check refuses what can't be measured.
func (f *benchFlags) check() error {
	switch {
	case f.bench.Repeat < 1 || f.bench.Repeat > 1000:
		return fmt.Errorf("--repeat %d: want 1 to 1000", f.bench.Repeat)
	case f.bench.Seconds < 1 || f.bench.Seconds > 60:
		return fmt.Errorf("--seconds %d: want 1 to 60", f.bench.Seconds)
	case f.baseline != "" && f.baseline != bench.OpenVPN:
		return fmt.Errorf("--baseline %s: want openvpn", f.baseline)
	case f.lab && (f.baselineNet != "" || f.bench.Directory != ""):
		return errors.New("--baseline-net and --directory are for a cluster of your own, not for --lab")
	case !f.lab && (f.baseline == "") != (f.baselineNet == ""):
		return errors.New("an OpenVPN baseline on your own nodes needs both --baseline openvpn and --baseline-net NETWORK; with --lab it is made for you")
	}
	if f.baselineNet != "" {
		p, err := netip.ParsePrefix(f.baselineNet)
		if err != nil {
			return fmt.Errorf("--baseline-net: %w", err)
		}
		f.bench.Tunnel = p.Masked()
	}
	return nil
}

// local makes paths absolute: jobs have a working directory of their own.
func (f *benchFlags) local() (err error) {
	if f.bench.Directory, err = filepath.Abs(f.bench.Directory); err != nil {
		return err
	}
	if strings.Contains(f.bench.Program, "/") {
		f.bench.Program, err = filepath.Abs(f.bench.Program)
	}
	return err
}

// keeper stores each run's output under a name of its own.
func (f *benchFlags) keeper() func(string, int, string) error {
	if f.keep == "" {
		return nil
	}
	return func(name string, repetition int, output string) error {
		if err := os.MkdirAll(f.keep, 0o755); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(f.keep, fmt.Sprintf("%s.%d.txt", name, repetition+1)), []byte(output), 0o644)
	}
}
