package enclaved

import (
	"sync"

	"github.com/sirupsen/logrus"
	"golang.org/x/time/rate"
)

// What the server could not answer is logged some times a minute: a fault that every call meets must not
// fill the disk besides.
const (
	faultRate  = rate.Limit(1.0 / 6) // a second
	faultBurst = 10
)

type faults struct {
	log     logrus.FieldLogger
	limit   *rate.Limiter
	mu      sync.Mutex
	skipped int
}

func newFaults(log logrus.FieldLogger) *faults {
	return &faults{log: log, limit: rate.NewLimiter(faultRate, faultBurst)}
}

// say is server.Settings' Failed. The line tells how many before it were not written.
func (f *faults) say(call string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.limit.Allow() {
		f.skipped++
		return
	}
	log := f.log.WithError(err).WithField("call", call)
	if f.skipped > 0 {
		log = log.WithField("skipped", f.skipped)
	}
	f.skipped = 0
	log.Error("call not answered")
}
