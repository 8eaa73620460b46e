package bench

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// The bounds of what a run may print.
const (
	maxOutput = 4 << 20
	maxLine   = 256 << 10
)

// Facts are what must be the same for runs to be comparable, and what a node had to do besides.
type Facts struct {
	Node     string  `json:"node"`
	Kernel   string  `json:"kernel"`
	Model    string  `json:"model"`
	CPUs     string  `json:"cpus"`
	Governor string  `json:"governor"` // "none" where the kernel has none to show
	Load     string  `json:"load"`     // of the last minute, before the run
	SEV      bool    `json:"sev"`
	Tunnel   string  `json:"tunnel,omitempty"` // userspace, kernel
	Busy     float64 `json:"busy"`             // share of the processors in use before the run
	missing  []string
}

// Run is what one job measured. A figure that was not measured is NaN.
type Run struct {
	Library string
	Latency map[int]float64 // by message size: microseconds
	Rate    map[int]float64 // by message size: MB/s
	TCP     float64         // Gbit/s
	CPU     float64         // seconds of the tunnel's processes per GB of payload
	Nodes   []Facts
	Missing map[string]string // why a figure is not there
}

var errIncomplete = errors.New("the job ended before its script did")

// parseRun reads the output of the script.
func parseRun(r io.Reader) (Run, error) {
	p := parser{run: Run{
		Latency: map[int]float64{}, Rate: map[int]float64{}, TCP: math.NaN(), CPU: math.NaN(), Missing: map[string]string{},
	}, ticks: map[string][2]float64{}}
	lines := bufio.NewScanner(io.LimitReader(r, maxOutput))
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		if err := p.line(lines.Text()); err != nil {
			return p.run, err
		}
	}
	if err := lines.Err(); err != nil {
		return p.run, fmt.Errorf("read output of the run: %w", err)
	}
	if !p.complete {
		return p.run, errIncomplete
	}
	if len(p.run.Nodes) != 2 {
		return p.run, fmt.Errorf("read output of the run: %d nodes said what they are, want 2", len(p.run.Nodes))
	}
	p.conclude()
	return p.run, nil
}

type parser struct {
	run      Run
	section  string // mpi, iperf3 or none
	table    map[int]float64
	iperf    strings.Builder
	server   []string              // what iperf3's server and its srun said
	ticks    map[string][2]float64 // of a process: before and after
	busy     map[string][]float64
	hertz    float64
	complete bool
}

func (p *parser) line(s string) error {
	word, rest, _ := strings.Cut(s, " ")
	switch word {
	case "@begin":
		p.section, p.table = rest, nil
	case "@end":
		p.section = ""
	case "@fact":
		return p.fact(rest)
	case "@busy":
		return p.sample(rest)
	case "@hertz":
		p.hertz, _ = strconv.ParseFloat(rest, 64)
	case "@ticks":
		return p.process(rest)
	case "@server":
		p.server = append(p.server, rest)
	case "@complete":
		p.complete = true
	default:
		switch p.section {
		case "mpi":
			return p.osu(s)
		case "iperf3":
			p.iperf.WriteString(s + "\n")
		}
	}
	return nil
}

// node finds a node's facts, or begins them.
func (p *parser) node(name string) *Facts {
	i := slices.IndexFunc(p.run.Nodes, func(f Facts) bool { return f.Node == name })
	if i < 0 {
		p.run.Nodes = append(p.run.Nodes, Facts{Node: name})
		i = len(p.run.Nodes) - 1
	}
	return &p.run.Nodes[i]
}

func (p *parser) fact(rest string) error {
	name, rest, _ := strings.Cut(rest, " ")
	key, value, ok := strings.Cut(rest, " ")
	if !ok || name == "" {
		return fmt.Errorf("read output of the run: fact %q", rest)
	}
	f := p.node(name)
	switch key {
	case "kernel":
		f.Kernel = value
	case "cpus":
		f.CPUs = value
	case "model":
		f.Model = value
	case "governor":
		f.Governor = value
	case "load":
		f.Load = value
	case "sev":
		f.SEV = true
	case "tunnel":
		f.Tunnel = value
	case "missing":
		f.missing = append(f.missing, value)
	}
	return nil
}

// sample is a line of /proc/stat (proc(5)): user nice system idle iowait irq softirq steal.
func (p *parser) sample(rest string) error {
	fields := strings.Fields(rest)
	if len(fields) < 10 {
		return fmt.Errorf("read output of the run: processors' times %q", rest)
	}
	var times []float64
	for _, s := range fields[2:10] {
		v, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return fmt.Errorf("read output of the run: %w", err)
		}
		times = append(times, v)
	}
	if p.busy == nil {
		p.busy = map[string][]float64{}
	}
	before, ok := p.busy[fields[0]]
	if !ok {
		p.busy[fields[0]] = times
		return nil
	}
	total, idle := 0.0, times[3]+times[4]-before[3]-before[4]
	for i := range times {
		total += times[i] - before[i]
	}
	if total > 0 {
		p.node(fields[0]).Busy = 1 - idle/total
	}
	return nil
}

// process is a line of /proc/PID/stat: fields 14, 15 and 22 are user and system time, and when
// the process began.
func (p *parser) process(rest string) error {
	fields := strings.Fields(rest)
	_, after, ok := strings.Cut(rest, ") ")
	stat := strings.Fields(after)
	if !ok || len(fields) < 3 || len(stat) < 20 {
		return fmt.Errorf("read output of the run: process %q", rest)
	}
	user, errUser := strconv.ParseFloat(stat[11], 64)
	system, errSystem := strconv.ParseFloat(stat[12], 64)
	if err := errors.Join(errUser, errSystem); err != nil {
		return fmt.Errorf("read output of the run: %w", err)
	}
	key := fields[0] + " " + fields[2] + " " + stat[19]
	pair := p.ticks[key]
	if fields[1] == "before" {
		pair[0] = user + system
	} else {
		pair[1] = user + system
	}
	p.ticks[key] = pair
	return nil
}

// osu reads a line of the OSU micro-benchmarks' format, which netbench prints, too.
func (p *parser) osu(s string) error {
	switch {
	case strings.HasPrefix(s, "# library "):
		p.run.Library = strings.TrimPrefix(s, "# library ")
	case strings.HasPrefix(s, "# Size") && strings.Contains(s, "Latency (us)"):
		p.table = p.run.Latency
	case strings.HasPrefix(s, "# Size") && strings.Contains(s, "Bandwidth (MB/s)"):
		p.table = p.run.Rate
	case strings.HasPrefix(s, "#") || p.table == nil:
	default:
		fields := strings.Fields(s)
		if len(fields) != 2 {
			return nil // a warning of the library
		}
		size, errSize := strconv.Atoi(fields[0])
		value, err := strconv.ParseFloat(fields[1], 64)
		if errSize == nil && err == nil && value > 0 && !math.IsInf(value, 0) {
			p.table[size] = value
		}
	}
	return nil
}

// report is what is needed of iperf3's JSON.
type report struct {
	Error     string `json:"error"`
	Intervals []struct {
		Sum struct {
			Bytes float64 `json:"bytes"`
		} `json:"sum"`
	} `json:"intervals"`
	End struct {
		Received struct {
			BitsPerSecond float64 `json:"bits_per_second"`
		} `json:"sum_received"`
	} `json:"end"`
}

// conclude computes what needs more than one line, and says why a figure is not there.
func (p *parser) conclude() {
	slices.SortFunc(p.run.Nodes, func(a, b Facts) int { return strings.Compare(a.Node, b.Node) })
	if len(p.run.Latency) == 0 {
		p.run.Missing[MPI8] = "the MPI program printed nothing"
		p.run.Missing[MPI1M] = p.run.Missing[MPI8]
	}
	for _, n := range p.run.Nodes {
		for _, m := range n.missing {
			p.run.Missing[TCP] = m + " is not on " + n.Node + ": package " + m
			p.run.Missing[CPU] = p.run.Missing[TCP]
		}
	}
	if p.run.Missing[TCP] != "" {
		return
	}
	var r report
	err := json.Unmarshal([]byte(p.iperf.String()), &r)
	if err == nil && r.Error != "" {
		err = errors.New(r.Error)
	}
	if err == nil && r.End.Received.BitsPerSecond <= 0 {
		err = errors.New("no bandwidth in its answer")
	}
	if err != nil {
		p.run.Missing[TCP] = "iperf3: " + err.Error()
		if len(p.server) > 0 {
			p.run.Missing[TCP] += "; its server: " + strings.Join(p.server, ", ")
		}
		p.run.Missing[CPU] = p.run.Missing[TCP]
		return
	}
	p.run.TCP = r.End.Received.BitsPerSecond / 1e9
	bytes := 0.0
	for _, i := range r.Intervals {
		bytes += i.Sum.Bytes
	}
	used := 0.0
	for _, pair := range p.ticks {
		used += max(pair[1]-pair[0], 0)
	}
	switch {
	case p.run.Nodes[0].Tunnel == "kernel":
		p.run.Missing[CPU] = "the kernel's work is in no process of its own"
	case p.hertz > 0 && bytes > 0:
		if v := used / p.hertz / (bytes / 1e9); !math.IsInf(v, 0) {
			p.run.CPU = v
		}
	}
}
