package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/slurm-enclave/slurm-enclave/internal/host/hardware"
)

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"enclave": main}) }

// The scripts of testdata run the program as people do.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Condition: func(condition string) (bool, error) {
			return condition == "sev" && hardware.Machine{}.Processor().SEV, nil
		},
	})
}
