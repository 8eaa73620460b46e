// Package enclaved puts the daemon together: files, verifier, site role, server.
//
// It decides nothing. A fault of the configuration stops it before it listens, with a code, the
// file's name and what to do; nothing half-configured ever answers a node. Only cmd/enclaved
// uses it, and internal/lab/scale, which has no Slurm.
package enclaved

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/host/file"
	"github.com/slurm-enclave/slurm-enclave/internal/host/munge"
	"github.com/slurm-enclave/slurm-enclave/internal/host/peer"
	"github.com/slurm-enclave/slurm-enclave/internal/host/program"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
	"github.com/slurm-enclave/slurm-enclave/internal/site"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/pki"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/server"
)

// spoolPause is how often the site role looks after what Slurm could not be told.
const spoolPause = 5 * time.Second

// collectAt is how much of what is in use may be garbage, in percent, unless GOGC says otherwise. The
// nodes of a large job hold a connection each: with Go's 100, 10,000 of them took 1,167 MB, with 50
// 923 (docs/performance.md).
const collectAt = 50

// Options say how to run.
type Options struct {
	Config string           // path of enclave.yaml
	Reload <-chan os.Signal // every signal reads tenants and policies again
	Trust  file.Trust       // who may own the files; the zero value is root alone
	Slurm  site.Slurm       // nil: as the configuration says
}

// Run serves until ctx ends.
func Run(ctx context.Context, log *logrus.Logger, o Options) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(collectAt)
	}
	d, err := prepare(ctx, log, files{o.Trust}, o)
	if err != nil {
		return err
	}
	defer func() {
		if err := d.ledger.Close(); err != nil {
			log.WithError(err).Error("ledger not closed")
		}
	}()
	return d.run(ctx, o.Reload)
}

// daemon is everything that lives as long as the process.
type daemon struct {
	log      *logrus.Logger
	config   config.Config
	ledger   *ledger.Ledger
	slurm    site.Slurm
	site     *site.Site
	verifier *verifier.Verifier
	server   *server.Server
	books    *books
	metrics  *metrics
}

func prepare(ctx context.Context, log *logrus.Logger, f files, o Options) (*daemon, error) {
	c, err := f.config(o.Config)
	if err != nil {
		return nil, err
	}
	inventory, err := f.inventory(c.Controller.Inventory)
	if err != nil {
		return nil, err
	}
	b, err := f.books(c)
	if err != nil {
		return nil, err
	}
	key, err := loadKey(c)
	if err != nil {
		return nil, err
	}
	receipts, err := receiptKeys(c.Controller.State)
	if err != nil {
		return nil, err
	}
	authority, err := pki.New(key)
	if err != nil {
		return nil, err
	}
	slurmUID, err := slurmUser(ctx, c.Controller.SlurmUser)
	if err != nil {
		return nil, err
	}
	l, err := openLedger(ctx, c.Controller.State)
	if err != nil {
		return nil, err
	}
	if o.Slurm == nil {
		o.Slurm = driver(c.Slurm)
	}
	d := &daemon{log: log, config: c, ledger: l, books: b, slurm: o.Slurm, site: site.New(o.Slurm, l, time.Now)}
	d.verifier, err = verifier.New(ctx, verifier.Settings{
		Config: c, Inventory: inventory, Key: key, Receipts: receipts, Ledger: l, Site: timely{d.site}, Tenants: b, Appraiser: b, Authority: authority, Alarm: d.alarm,
	})
	if err == nil {
		d.server, err = server.New(server.Settings{
			Verifier: d.verifier, Authority: authority, Credentials: munge.Munge{}, Levels: levels{program.Runner{}},
			PeerUID: peer.UID, SlurmUID: slurmUID, Failed: newFaults(log).say,
		})
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	d.metrics = newMetrics(d.server.Refused)
	return d, nil
}

func (d *daemon) alarm(a ledger.Alarm) {
	if d.metrics != nil { // of a start that fails, nobody reads them
		d.metrics.alarms.WithLabelValues(string(a.Code)).Inc()
	}
	d.log.WithFields(logrus.Fields{"code": a.Code, "reason": a.Reason}).Error("alarm")
}

func (d *daemon) run(ctx context.Context, reload <-chan os.Signal) error {
	public, err := listenPublic(ctx, d.config.Controller.Listen)
	if err != nil {
		return err
	}
	local, err := listenLocal(ctx, d.config.Controller.Socket)
	if err != nil {
		return errors.Join(err, public.Close())
	}
	ctx, end := context.WithCancel(ctx)
	defer end()
	if err = d.metrics.serve(ctx, d.config.Controller.Metrics); err != nil {
		return errors.Join(err, public.Close(), local.Close())
	}
	d.log.WithFields(logrus.Fields{
		"address": d.config.Controller.Listen, "key": pin(d.verifier.Public()), "simulated": d.config.Controller.AllowSimulated,
		"receipt_key": pin(rawKey(d.verifier.ReceiptSigners().Real)),
	}).Info("ready")
	var kept sync.WaitGroup
	kept.Go(func() { d.sayDriver(ctx, d.slurm) })
	kept.Go(func() { d.keep(ctx, reload) })
	// Open barriers are refused first, so that the calls which wait at them end.
	context.AfterFunc(ctx, d.verifier.Close)
	err = d.server.Serve(ctx, public, local)
	end()
	d.verifier.Close() // waits, should the first call be under way
	kept.Wait()
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	d.log.Info("stopped")
	return nil
}

// seal makes receipts that are due. What fails is an alarm of the verifier's, and tried again.
func (d *daemon) seal(ctx context.Context) {
	work, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := d.verifier.SealDue(work); err != nil && ctx.Err() == nil {
		d.log.WithError(err).Warn("receipts not made")
	}
}

func rawKey(k enclave.PublicKey) ed25519.PublicKey { return k[:] }

// learn spares the first job after a start or reload the verification of its chips' certificates.
// Without it all is the same, and slower.
func (d *daemon) learn(ctx context.Context) {
	chips, err := d.verifier.Chips(ctx)
	if err != nil {
		d.log.WithError(err).Warn("certificates not verified ahead")
	}
	d.books.learn(chips.Chips)
}

// count tells slurmctld how many nodes there are, so that a job for more is refused at submit.
func (d *daemon) count(ctx context.Context) {
	n, err := d.ledger.CountEnrolled(ctx)
	if err == nil {
		err = d.books.count(d.config, n)
	}
	if err != nil && ctx.Err() == nil {
		d.log.WithError(err).Warn("number of nodes not told to slurmctld")
	}
}

// keep seals receipts, does the errands that Slurm could not be told, and reads the books again when told to.
func (d *daemon) keep(ctx context.Context, reload <-chan os.Signal) {
	t := time.NewTicker(spoolPause)
	defer t.Stop()
	d.learn(ctx)
	d.count(ctx)
	d.lookThrough(ctx, time.Now())
	ahead := time.NewTicker(lookAhead)
	defer ahead.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ahead.C:
			d.lookThrough(ctx, now)
		case <-t.C:
			if err := d.books.refresh(); err != nil {
				d.verifier.Raise(ctx, "E528", err.Error())
			}
			work, cancel := context.WithTimeout(ctx, time.Minute)
			if err := d.site.Work(work); err != nil {
				d.log.WithError(err).Warn("errands not done")
			}
			cancel()
			d.seal(ctx)
		case <-d.verifier.Enrolments():
			d.count(ctx)
		case <-d.verifier.Over():
			d.seal(ctx)
		case <-reload:
			if err := d.books.load(d.config); err != nil {
				d.log.WithError(err).Error("files not read again, the old ones stay in force")
				continue
			}
			d.learn(ctx)
			d.log.Info("tenants and policies read again")
		}
	}
}
