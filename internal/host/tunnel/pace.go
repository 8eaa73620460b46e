package tunnel

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// lookEvery is how often Pace looks at what was used.
const lookEvery = 100 * time.Millisecond

// Pace gives the calling process one processor while that is enough, and up to most of them
// while it is not, until done. A packet that workers on several processors hand to each other takes
// about three times as long as one that stays on one; but one processor seals some 2.5 Gbit/s.
func Pace(done <-chan struct{}, most int) {
	now := 1
	runtime.GOMAXPROCS(now)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	at, before := time.Now(), used()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		then, after := time.Now(), used()
		load := float64(after-before) / float64(max(then.Sub(at), time.Millisecond))
		at, before = then, after
		if next := processors(now, most, load); next != now {
			now = next
			runtime.GOMAXPROCS(now)
		}
	}
}

// processors is how many to go on with, of load in processors. What it gives up it does not need
// at once again.
func processors(now, most int, load float64) int {
	const full, spare = 0.85, 0.35
	switch {
	case load >= full*float64(now):
		return min(2*now, max(most, 1))
	case load < spare*float64(now):
		return max(now/2, 1)
	}
	return now
}

// used is the processor time of this process.
func used() time.Duration {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
