//go:build vm || e2e

package vmtest_test

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/slurm-enclave/slurm-enclave/internal/host/vmtest"
)

// inside are the programs that this test program is in a machine, by its first argument.
var inside = map[string]func() error{
	"up": up, "down": down, "counters": counters, "tunnel": tunnelState, "fence-down": fenceDown,
	"answer": answer, "probe": probe, "serve": serve, "client": client, "sniff": sniff, "go": gateOpen,
}

func TestMain(m *testing.M) {
	vmtest.Play()
	if len(os.Args) == 2 && inside[os.Args[1]] != nil {
		if err := inside[os.Args[1]](); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	machines.stop()
	installation.stop()
	cluster.stop()
	os.Exit(code)
}

// input reads what the test gave the program.
func input(to any) error { return json.NewDecoder(os.Stdin).Decode(to) }
