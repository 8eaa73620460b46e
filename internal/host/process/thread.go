package process

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Aside does something on a thread of its own that is not used again: do may change the thread's
// ids by raw system calls. It is never the process's first thread, whose ids are what the rest of
// the machine takes for the process's, and which the runtime would keep.
func Aside(do func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			done <- Aside(do) // this goroutine holds the first thread meanwhile
			runtime.UnlockOSThread()
			return
		}
		done <- do() // never unlocked: the thread ends with the goroutine
	}()
	return <-done
}
