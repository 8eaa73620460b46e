package vmtest

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// clock waits until a second of the machine's is one of ours. A kernel that measures its counter's
// frequency while the machine gets no processor takes it for much slower than it is: its time then
// flies, and every deadline in it is over at once [tried: five times as fast]. Some seconds
// later it notices, and uses another clock.
func (m *Machine) clock() error {
	ctx, cancel := context.WithTimeout(context.Background(), bootTime)
	defer cancel()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for rate := 0.0; ; {
		before, at, err := m.uptime()
		if err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("machine %s: its clock runs at %.1f times the right rate", m.Name, rate)
		}
		after, later, err := m.uptime()
		if err != nil {
			return err
		}
		rate = (after - before).Seconds() / later.Sub(at).Seconds()
		if rate > 0.6 && rate < 1.5 { // asking takes some time, too
			return nil
		}
	}
}

// uptime is the machine's clock, and ours at that time.
func (m *Machine) uptime() (time.Duration, time.Time, error) {
	asked := time.Now()
	out, ok := m.Try("cat", "/proc/uptime")
	seconds, _, _ := strings.Cut(out, " ")
	up, err := strconv.ParseFloat(seconds, 64)
	if !ok || err != nil {
		return 0, asked, fmt.Errorf("machine %s: read clock: %s", m.Name, out)
	}
	return time.Duration(up * float64(time.Second)), asked.Add(time.Since(asked) / 2), nil
}
