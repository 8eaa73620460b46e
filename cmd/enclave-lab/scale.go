package main

import (
	"os"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/slurm-enclave/slurm-enclave/internal/lab/scale"
)

// measured is the hidden command of the process that is measured.
const measured = "scale-enclaved"

func scaleCommand() *cobra.Command {
	o := scale.Options{}
	c := &cobra.Command{
		Use: "scale", Short: "Measure how a job of many simulated nodes comes up; needs no lab", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			o.Server = []string{self, measured}
			return scale.Run(c.Context(), o, c.OutOrStdout())
		},
	}
	f := c.Flags()
	f.IntVar(&o.Nodes, "nodes", 1000, "nodes of the job")
	f.StringVar(&o.Directory, "dir", "", "directory that keeps the chips for the next run")
	f.Float64Var(&o.Sample, "sample", 0.01, "part of the nodes that fetch all leaves and check them")
	f.DurationVar(&o.Spread, "spread", 0, "time over which the nodes post their evidence; 0 is all at once")
	f.DurationVar(&o.Straggler, "straggler", 0, "the last node posts so much later than the others")
	f.BoolVar(&o.Lost, "lost", false, "the last node takes a nonce and is never heard of again")
	f.BoolVar(&o.Twice, "twice", false, "the first node posts its evidence twice, and then another")
	f.BoolVar(&o.Cold, "cold", false, "enclaved has never seen the chips' certificates")
	f.IntVar(&o.Devices, "devices", 3, "nodes that make a WireGuard device of the roster; needs root, 0 is none")
	f.StringVar(&o.Profile, "profile", "", "directory for the profiles of enclaved: cpu.pprof, heap.pprof, memory.txt")
	return c
}

func enclavedCommand() *cobra.Command {
	return &cobra.Command{Use: measured + " DIR [PROFILES]", Hidden: true, Args: cobra.RangeArgs(1, 2), RunE: func(c *cobra.Command, args []string) error {
		profiles := ""
		if len(args) > 1 {
			profiles = args[1]
		}
		log := logrus.New()
		log.SetOutput(c.ErrOrStderr())
		return scale.Serve(c.Context(), args[0], profiles, os.Stdin, log)
	}}
}

// deviceCommand is the network of one node with a device, which scale starts.
func deviceCommand() *cobra.Command {
	return &cobra.Command{Use: scale.DeviceCommand, Hidden: true, Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		return scale.Device(c.Context(), os.NewFile(3, "orders"), os.NewFile(4, "words"))
	}}
}
