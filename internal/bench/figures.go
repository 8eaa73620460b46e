package bench

import (
	"fmt"
	"math"
	"slices"
)

// The figures of a row, by their names in JSON.
const (
	MPI8  = "mpi8_us"      // half round trip of 8 bytes between two ranks
	MPI1M = "mpi1m_us"     // the same with 1 MiB
	MPIBW = "mpi_mbs"      // stream of 1 MiB messages, 8 of them under way
	TCP   = "tcp_gbps"     // iperf3, one stream
	CPU   = "cpu_s_per_gb" // processor time of the tunnel's processes, both ends, per 10^9 bytes of payload
)

func figures() []string { return []string{MPI8, MPI1M, MPIBW, TCP, CPU} }

const mebibyte = 1 << 20

// value is one figure of a run, NaN when it was not measured.
func (r Run) value(figure string) float64 {
	of := func(table map[int]float64, size int) float64 {
		if v, ok := table[size]; ok {
			return v
		}
		return math.NaN()
	}
	switch figure {
	case MPI8:
		return of(r.Latency, 8)
	case MPI1M:
		return of(r.Latency, mebibyte)
	case MPIBW:
		return of(r.Rate, mebibyte)
	case TCP:
		return r.TCP
	default:
		return r.CPU
	}
}

// median leaves out what was not measured; NaN when nothing is left.
func median(values []float64) float64 {
	v := measured(values)
	if len(v) == 0 {
		return math.NaN()
	}
	if len(v)%2 == 1 {
		return v[len(v)/2]
	}
	return (v[len(v)/2-1] + v[len(v)/2]) / 2
}

// measured is the sorted figures without those that are not there.
func measured(values []float64) []float64 {
	v := slices.DeleteFunc(slices.Clone(values), math.IsNaN)
	slices.Sort(v)
	return v
}

// The verdicts of a Ratio. A ratio of runs that can't be compared is none, see Ratio.Why.
const (
	Higher    = "higher"
	Lower     = "lower"
	Noise     = "within noise"
	CannotSay = "cannot say"
)

// The bounds beyond which nothing is said.
const (
	leastPairs  = 3    // repetitions
	mostBusy    = 0.15 // of the processors, before the runs
	oneSideOf10 = 9    // of ten pairs must lie on the same side
)

// Ratio compares one figure of two rows, repetition by repetition: the runs of one repetition
// stand next to each other, so that what the machine had to do besides falls on both.
type Ratio struct {
	Figure  string  `json:"figure"`
	Of      string  `json:"of"`
	To      string  `json:"to"`
	Median  float64 `json:"median"` // of the pairs' ratios
	Low     float64 `json:"low"`
	High    float64 `json:"high"`
	Pairs   int     `json:"pairs"`
	Verdict string  `json:"verdict"`
	Why     string  `json:"why,omitempty"` // of "cannot say"
}

// ratio pairs the repetitions. ok is false when no pair has both figures, or the rows were
// measured on machines that differ.
func ratio(figure string, a, b Row) (r Ratio, ok bool) {
	r = Ratio{Figure: figure, Of: a.Name, To: b.Name}
	var all []float64
	above := 0
	for i := range min(len(a.runs), len(b.runs)) {
		v := a.runs[i].value(figure) / b.runs[i].value(figure)
		if math.IsNaN(v) || math.IsInf(v, 0) {
			continue
		}
		all = append(all, v)
		if v > 1 {
			above++
		}
	}
	all = measured(all)
	if r.Pairs = len(all); r.Pairs == 0 {
		return r, false
	}
	r.Median, r.Low, r.High = median(all), all[0], all[len(all)-1]
	busy := max(a.Busy, b.Busy)
	switch {
	case r.Pairs < leastPairs:
		r.Verdict, r.Why = CannotSay, fmt.Sprintf("%d repetitions, %d are needed", r.Pairs, leastPairs)
	case busy > mostBusy:
		r.Verdict, r.Why = CannotSay, fmt.Sprintf("%.0f %% of the processors were busy before the runs, %.0f %% are allowed", 100*busy, 100*mostBusy)
	case above*10 >= r.Pairs*oneSideOf10:
		r.Verdict = Higher
	case (r.Pairs-above)*10 >= r.Pairs*oneSideOf10:
		r.Verdict = Lower
	default:
		r.Verdict = Noise
	}
	return r, true
}
