package stage_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/slurm-enclave/slurm-enclave/internal/stage"
)

func say(words string, err error) func(context.Context) error {
	return func(context.Context) error { fmt.Println(words); return err }
}

// The stage that fails comes down first: it may have run in part.
func ExampleUp() {
	err := stage.Up(context.Background(), []stage.Stage{
		{Name: "mesh", Up: say("make link", nil), Down: say("delete link", nil)},
		{Name: "subtree", Up: say("mount", errors.New("no such tenant")), Down: say("unmount", nil)},
	}, nil)
	fmt.Println(err)
	// Output:
	// make link
	// mount
	// unmount
	// delete link
	// subtree: up: no such tenant
}

func ExampleDown() {
	observe := func(t stage.Timing) { fmt.Println(t.Phase, t.Stage, t.Err) }
	_ = stage.Down(context.Background(), []stage.Stage{
		{Name: "mesh", Down: say("delete link", nil)},
		{Name: "subtree", Down: say("unmount", nil)},
	}, observe)
	// Output:
	// unmount
	// down subtree <nil>
	// delete link
	// down mesh <nil>
}
