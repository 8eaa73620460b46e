package enclaved

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/slurm-enclave/slurm-enclave/internal/certs"
)

// lookAhead is how often the certificate store is looked through for what ends.
const lookAhead = 12 * time.Hour

// metrics is what enclaved tells a Prometheus server: numbers about itself and its certificates,
// none about jobs, users or tenants. Whoever reaches the address may read them.
type metrics struct {
	registry *prometheus.Registry
	alarms   *prometheus.CounterVec
	ends     *prometheus.GaugeVec
	warnings prometheus.Gauge
	looked   prometheus.Gauge
}

func newMetrics(refused func() map[string]uint64) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		alarms:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "enclave_alarms_total", Help: "Alarms, by their code."}, []string{"code"}),
		ends: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "enclave_certificate_not_after_seconds", Help: "End of a certificate or revocation list of the store, in Unix seconds.",
		}, []string{"kind", "path"}),
		warnings: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "enclave_certificate_warnings", Help: "Files of the certificate store that are of no use, have ended, or end within 30 days.",
		}),
		looked: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "enclave_certificate_check_seconds", Help: "When the certificate store was last looked through, in Unix seconds; 0 is never.",
		}),
	}
	m.registry.MustRegister(m.alarms, m.ends, m.warnings, m.looked, turnedAway{refused},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// turnedAway reads the server's own counters when it is asked.
type turnedAway struct{ read func() map[string]uint64 }

func (turnedAway) describe() *prometheus.Desc {
	return prometheus.NewDesc("enclave_refused_calls_total", "Calls that were turned away, by what was wrong.", []string{"reason"}, nil)
}

// Describe is prometheus.Collector's.
func (c turnedAway) Describe(to chan<- *prometheus.Desc) { to <- c.describe() }

// Collect is prometheus.Collector's.
func (c turnedAway) Collect(to chan<- prometheus.Metric) {
	for reason, n := range c.read() {
		to <- prometheus.MustNewConstMetric(c.describe(), prometheus.CounterValue, float64(n), reason)
	}
}

// serve answers until ctx ends. Without an address there is nothing to do.
func (m *metrics) serve(ctx context.Context, address string) error {
	if address == "" {
		return nil
	}
	l, err := listenPublic(ctx, address)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	s := &http.Server{Handler: mux, ReadTimeout: askTimeout, WriteTimeout: askTimeout, MaxHeaderBytes: 8 << 10}
	context.AfterFunc(ctx, func() { _ = s.Close() })
	go func() { _ = s.Serve(l) }() // ends with ctx
	return nil
}

// lookThrough raises an alarm for what ends within 30 days, or is of no use already.
func (d *daemon) lookThrough(ctx context.Context, now time.Time) {
	holding, err := d.books.survey()
	if err != nil {
		d.verifier.Raise(ctx, "E529", err.Error())
		return
	}
	d.metrics.ends.Reset()
	for _, h := range holding {
		if !h.Until.IsZero() {
			d.metrics.ends.WithLabelValues(string(h.Kind), h.Path).Set(float64(h.Until.Unix()))
		}
	}
	list := certs.Warnings(holding, now, certs.WarnAhead)
	d.metrics.warnings.Set(float64(len(list)))
	d.metrics.looked.Set(float64(now.Unix()))
	if len(list) > 0 {
		d.verifier.Raise(ctx, "E529", fmt.Sprintf("%d files of the certificate store need a look, first %s: it %s", len(list), list[0].Path, list[0].Text))
	}
}
