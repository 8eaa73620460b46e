package bench

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
)

// The names of rows. They are stable, and documented in enclave(1).
const (
	Plain     = "plain"               // no encryption, nodes without SEV
	Conf      = "conf"                // no tunnel, nodes with SEV
	Userspace = "wireguard-userspace" // an enclave, its tunnel held by enclave-keeper
	Kernel    = "wireguard-kernel"    // an enclave, its tunnel held by the kernel
	OpenVPN   = "openvpn"             // AES-128-CBC and SHA256, TLS, UDP
)

// columns are the names that the UC Davis measurements gave them.
func column(row string) string {
	switch row {
	case Plain:
		return "No_Conf"
	case Conf:
		return "Conf"
	case OpenVPN:
		return "No_Conf+VPN"
	}
	return "Conf+tunnel"
}

// Row is one way to talk, measured several times.
type Row struct {
	Name      string
	Partition string
	Nodes     []string
	Library   string
	Facts     Facts   // of the first node, in the last run
	Busy      float64 // median over the runs of the busier node
	Missing   map[string]string
	runs      []Run
}

// Median is a figure's median, NaN when it was not measured.
func (r Row) Median(figure string) float64 { return median(r.values(figure)) }

// Spread is a figure's least and greatest value.
func (r Row) Spread(figure string) (low, high float64) {
	v := measured(r.values(figure))
	if len(v) == 0 {
		return math.NaN(), math.NaN()
	}
	return v[0], v[len(v)-1]
}

// Runs is how many runs the row has.
func (r Row) Runs() int { return len(r.runs) }

func (r Row) values(figure string) []float64 {
	var v []float64
	for _, run := range r.runs {
		v = append(v, run.value(figure))
	}
	return v
}

// add counts one more run. All runs of a row are of the same nodes.
func (r *Row) add(run Run) error {
	var nodes []string
	for _, n := range run.Nodes {
		nodes = append(nodes, n.Node)
	}
	if r.Nodes == nil {
		r.Nodes = nodes
	}
	if !slices.Equal(r.Nodes, nodes) {
		return fmt.Errorf("compare runs of %s: on %v first, now on %v", r.Name, r.Nodes, nodes)
	}
	r.runs, r.Facts, r.Library = append(r.runs, run), run.Nodes[0], run.Library
	if r.Missing == nil {
		r.Missing = map[string]string{}
	}
	maps.Copy(r.Missing, run.Missing)
	var busy []float64
	for _, one := range r.runs {
		busy = append(busy, max(one.Nodes[0].Busy, one.Nodes[1].Busy))
	}
	r.Busy = median(busy)
	return nil
}

// differs says in what two rows' machines differ, "" when they may be compared.
func differs(a, b Row) string {
	for _, x := range a.runs {
		for _, y := range b.runs {
			for i := range x.Nodes {
				m, n := x.Nodes[i], y.Nodes[i]
				for _, f := range [][3]string{
					{"kernel", m.Kernel, n.Kernel},
					{"processor", m.Model, n.Model},
					{"number of processors", m.CPUs, n.CPUs},
					{"governor", m.Governor, n.Governor},
					{"MPI library", x.Library, y.Library},
				} {
					if f[1] != f[2] {
						return fmt.Sprintf("%s of %s is %q, that of %s %q", f[0], m.Node, f[1], n.Node, f[2])
					}
				}
			}
		}
	}
	return ""
}

// Result is the table, and what follows from it.
type Result struct {
	Rows       []Row
	Ratios     []Ratio
	Comparable bool
	Notes      []string // what is not there or not comparable, and why
}

// conclude compares every row with the first one, and with the baseline.
func conclude(rows []Row, notes []string) Result {
	r := Result{Rows: rows, Comparable: true, Notes: notes}
	for i, b := range rows {
		if i > 0 && b.Name != OpenVPN {
			continue
		}
		for _, a := range rows {
			if a.Name == b.Name || i > 0 && a.Name == rows[0].Name {
				continue
			}
			if why := differs(a, b); why != "" {
				r.Comparable = false
				r.Notes = append(r.Notes, fmt.Sprintf("not comparable: %s and %s: %s", a.Name, b.Name, why))
				continue
			}
			for _, figure := range figures() {
				if one, ok := ratio(figure, a, b); ok {
					r.Ratios = append(r.Ratios, one)
				}
			}
		}
	}
	return r
}

// number is null in JSON when it was not measured.
type number float64

// MarshalJSON rounds to what can be meant.
func (n number) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(n)) {
		return []byte("null"), nil
	}
	return strconv.AppendFloat(nil, rounded(float64(n)), 'f', -1, 64), nil
}

// rounded keeps four digits.
func rounded(v float64) float64 {
	r, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 4, 64), 64)
	if err != nil {
		return v
	}
	return r
}

// MarshalJSON is the row with its figures, null where there is none.
func (r Row) MarshalJSON() ([]byte, error) {
	spread := map[string][2]number{}
	for _, f := range figures() {
		if low, high := r.Spread(f); !math.IsNaN(low) {
			spread[f] = [2]number{number(low), number(high)}
		}
	}
	return json.Marshal(struct {
		Name      string               `json:"name"`
		Column    string               `json:"column"`
		MPI8      number               `json:"mpi8_us"`
		MPI1M     number               `json:"mpi1m_us"`
		MPIBW     number               `json:"mpi_mbs"`
		TCP       number               `json:"tcp_gbps"`
		CPU       number               `json:"cpu_s_per_gb"`
		Runs      int                  `json:"runs"`
		Spread    map[string][2]number `json:"spread"`
		Missing   map[string]string    `json:"missing,omitempty"`
		Partition string               `json:"partition"`
		Nodes     []string             `json:"nodes"`
		Library   string               `json:"mpi_library"`
		Facts     Facts                `json:"node"`
		Busy      number               `json:"busy"`
	}{
		r.Name, column(r.Name), number(r.Median(MPI8)), number(r.Median(MPI1M)), number(r.Median(MPIBW)), number(r.Median(TCP)),
		number(r.Median(CPU)), r.Runs(), spread, r.Missing, r.Partition, r.Nodes, r.Library, r.Facts, number(r.Busy),
	})
}

// MarshalJSON is the ratio with numbers of four digits.
func (r Ratio) MarshalJSON() ([]byte, error) {
	type plain Ratio // without this method
	return json.Marshal(struct {
		plain
		Median number `json:"median"`
		Low    number `json:"low"`
		High   number `json:"high"`
	}{plain(r), number(r.Median), number(r.Low), number(r.High)})
}

// MarshalJSON keeps the document's field names.
func (r Result) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]any{
		"rows": orEmpty(r.Rows), "ratios": orEmpty(r.Ratios), "comparable": r.Comparable, "notes": orEmpty(r.Notes),
	})
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
