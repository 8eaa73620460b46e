package main

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/slurm-enclave/slurm-enclave/internal/lab"
)

func command(status *int) *cobra.Command {
	root := &cobra.Command{
		Use: "enclave-lab", Short: "A real Slurm cluster with enclaves on one machine, attestation SIMULATED",
		SilenceUsage: true, SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) error { return lab.CheckName() },
	}
	root.AddCommand(upCommand(), suiteCommand(), downCommand(), statusCommand(), execCommand(), submitCommand(status), benchCommand(), harmCommand(), soakCommand(), scaleCommand(), enclavedCommand(), deviceCommand(), controlCommand("stop", true, false), controlCommand("start", false, true), controlCommand("restart", true, true), superviseCommand(), agentCommand())
	return root
}

func upCommand() *cobra.Command {
	spec := lab.Spec{}
	c := &cobra.Command{Use: "up", Short: "Bring the lab up", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		return lab.Up(c.Context(), spec, filepath.Dir(self), c.OutOrStdout())
	}}
	c.Flags().IntVar(&spec.Nodes, "nodes", 3, "hosts in partition cpu-sev")
	c.Flags().IntVar(&spec.Plain, "plain", 1, "hosts in partition cpu")
	c.Flags().StringVar(&spec.Suite, "suite", "", "Debian suite whose Slurm the hosts run, made on first use; empty is this machine's own")
	c.Flags().BoolVar(&spec.Rest, "slurmrestd", false, "start slurmrestd, and let enclaved talk to Slurm through it")
	c.Flags().StringVar(&spec.Domain, "domain", "", "what Slurm's names of the nodes end in, for NodeNames that are not the hosts' names")
	c.Flags().StringVar(&spec.Driver, "driver", "", "how enclaved talks to Slurm: cli or rest (rest with --slurmrestd)")
	c.Flags().StringVar(&spec.Isolation, "isolation", "", "namespace: a job's view of data is in its own mount namespace (Slurm 24.11, --suite trixie); empty is the node's")
	return c
}

func suiteCommand() *cobra.Command {
	return &cobra.Command{
		Use: "suite NAME", Short: "Make the root of a Debian suite with its Slurm, for up --suite NAME", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			return lab.Prepare(c.Context(), args[0], filepath.Dir(self), c.OutOrStdout())
		},
	}
}

func downCommand() *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "End the lab and leave nothing of it", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return lab.Down(c.Context()) },
	}
}

func statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Say what runs where", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return lab.Status(c.OutOrStdout()) },
	}
}

func execCommand() *cobra.Command {
	var user string
	c := &cobra.Command{
		Use: "exec HOST [--user USER] -- COMMAND...", Short: "Run a command on a host of the lab", Args: cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error { return lab.Exec(args[0], user, args[1:]) },
	}
	c.Flags().StringVar(&user, "user", "root", "user of the lab")
	return c
}

func submitCommand(status *int) *cobra.Command {
	j := lab.Job{}
	c := &cobra.Command{
		Use: "submit --user USER --nodes N -- COMMAND...", Short: "Submit a job, wait, and print its output", Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			j.Argv = args
			*status, err = lab.Submit(c.Context(), j, c.OutOrStdout(), c.ErrOrStderr())
			return err
		},
	}
	c.Flags().StringVar(&j.User, "user", "alice", "user of the lab")
	c.Flags().StringVar(&j.Partition, "partition", "cpu-sev", "partition")
	c.Flags().IntVar(&j.Nodes, "nodes", 1, "nodes, one task each")
	return c
}

func superviseCommand() *cobra.Command {
	return &cobra.Command{Use: "supervise PROGRAMS", Hidden: true, Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
		return lab.SuperviseFrom(c.Context(), os.NewFile(3, "identity"), os.NewFile(4, "answer"), args[0])
	}}
}

func agentCommand() *cobra.Command {
	return &cobra.Command{Use: "agent", Hidden: true, Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		return lab.RunAgent(os.NewFile(3, "requests"), os.NewFile(4, "events"))
	}}
}

func benchCommand() *cobra.Command {
	var repeat int
	c := &cobra.Command{
		Use: "bench", Short: "Measure sbatch to rank start in cpu and cpu-sev, interleaved", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return lab.Bench(c.Context(), repeat, c.OutOrStdout()) },
	}
	c.Flags().IntVar(&repeat, "repeat", 15, "runs in each partition")
	return c
}

func harmCommand() *cobra.Command {
	var repeat int
	c := &cobra.Command{
		Use: "harm", Short: "Measure what a job of cpu pays: srun and slurmstepd without and with the plugin, prologs and epilogs", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return lab.Harm(c.Context(), repeat, c.OutOrStdout()) },
	}
	c.Flags().IntVar(&repeat, "repeat", 7, "runs without and with the plugin, and jobs")
	return c
}

func soakCommand() *cobra.Command {
	o := lab.SoakOptions{}
	c := &cobra.Command{
		Use: "soak", Short: "Run many jobs in cpu-sev, cancel some, and look at what is left", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return lab.Soak(c.Context(), o, c.OutOrStdout()) },
	}
	c.Flags().IntVar(&o.Jobs, "jobs", 200, "in all: three fifths one by one, the rest in bursts")
	c.Flags().IntVar(&o.Together, "together", 20, "jobs of a burst, of which half are cancelled")
	c.Flags().Uint64Var(&o.Seed, "seed", 1, "of sizes, and of who is cancelled when")
	return c
}

func controlCommand(name string, stop, start bool) *cobra.Command {
	return &cobra.Command{
		Use: name + " HOST DAEMON", Short: "Let a daemon of the lab crash, run again, or both: " + name, Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return lab.Control(c.Context(), args[0], args[1], stop, start)
		},
	}
}
