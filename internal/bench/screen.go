package bench

import (
	"fmt"
	"math"
	"strings"
	"text/tabwriter"
)

// titles are the figures' headings.
func titles() map[string]string {
	return map[string]string{
		MPI8: "MPI 8 B us", MPI1M: "MPI 1 MiB us", MPIBW: "MPI MB/s", TCP: "TCP Gbit/s", CPU: "CPU s/GB",
	}
}

// Screen is the result as text: medians with least and greatest value, then what follows.
func (r Result) Screen() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	head := []string{"", "", "n"}
	for _, f := range figures() {
		head = append(head, titles()[f])
	}
	_, _ = fmt.Fprintln(w, strings.Join(head, "\t"))
	for _, row := range r.Rows {
		cells := []string{row.Name, column(row.Name), fmt.Sprint(row.Runs())}
		for _, f := range figures() {
			cells = append(cells, cell(row, f))
		}
		_, _ = fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	_ = w.Flush() // into memory
	last := ""
	for _, one := range r.Ratios {
		if pair := one.Of + " against " + one.To; pair != last {
			fmt.Fprintf(&b, "\n%s\n", pair)
			last = pair
		}
		fmt.Fprintf(&b, "  %-13s x %s (%s to %s)  %s", titles()[one.Figure], short(one.Median), short(one.Low), short(one.High), one.Verdict)
		if one.Why != "" {
			b.WriteString(": " + one.Why)
		}
		b.WriteString("\n")
	}
	if notes := r.notes(); len(notes) > 0 {
		b.WriteString("\n" + strings.Join(notes, "\n") + "\n")
	}
	return b.String()
}

// notes are also what each row says of its empty cells.
func (r Result) notes() []string {
	all := append([]string(nil), r.Notes...)
	for _, row := range r.Rows {
		for _, f := range figures() {
			if why := row.Missing[f]; why != "" {
				all = append(all, fmt.Sprintf("%s, %s: %s", row.Name, titles()[f], why))
			}
		}
	}
	return all
}

func cell(row Row, figure string) string {
	m := row.Median(figure)
	if math.IsNaN(m) {
		return "-"
	}
	low, high := row.Spread(figure)
	return fmt.Sprintf("%s (%s..%s)", short(m), short(low), short(high))
}

// short is a number as people read it.
func short(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
