// Package cli is the command line for people: it parses flags, calls one room, prints what came
// of it as text or JSON, and says how it ended in the exit status.
//
// It decides nothing about jobs or nodes. Commands return an ExitError where the status is not
// 1; the program's main prints the error and exits.
package cli

import "fmt"

// The exit statuses of all commands.
const (
	ExitOK      = 0
	ExitFailure = 1 // any other error, a file that can't be opened among them
	ExitUsage   = 2
	ExitBelow   = 3 // below policy
	ExitUnknown = 4 // can't be determined
	ExitDenied  = 5 // not permitted
	ExitInvalid = 6 // evidence is invalid
	ExitMissing = 7 // not found
)

// ExitError is an error with the exit status that it stands for. Err is nil where the command
// has printed all there is to say; the program then ends without a word.
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit status %d", e.Code)
	}
	return e.Err.Error()
}

func (e *ExitError) Unwrap() error { return e.Err }
