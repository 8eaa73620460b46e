package attest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// DefaultRoot is where the kernel serves reports.
const DefaultRoot = "/sys/kernel/config/tsm/report"

// Provider is the only provider that is taken: a report of another kind of machine must not
// reach a verifier that reads it as SEV-SNP.
const Provider = "sev_guest"

// reportSize is the length of a report, every version's.
const reportSize = 1184

// The refusals of an attester. All are the node's fault.
const (
	CodeNoAttester    enclave.Code = "E222"
	CodeWrongProvider enclave.Code = "E225"
	CodeTimeout       enclave.Code = "E226"
	CodeNoReport      enclave.Code = "E227"
)

// Attester asks the kernel for reports.
type Attester struct{ root string }

// New makes an attester on configfs-tsm at root, on DefaultRoot when root is "".
func New(root string) *Attester {
	if root == "" {
		root = DefaultRoot
	}
	return &Attester{root: root}
}

// answer is what the goroutine of Evidence hands back.
type answer struct {
	evidence enclave.Evidence
	err      error
}

// Evidence gets one report over reportData. The context bounds it, busy firmware included. A
// file call that hangs in the kernel can't be called off: then the answer is a refusal in time,
// and the call's own goroutine removes its entry when the kernel lets it go.
func (a *Attester) Evidence(ctx context.Context, reportData [64]byte) (enclave.Evidence, error) {
	done := make(chan answer, 1)
	go func() {
		e, err := a.evidence(ctx, reportData)
		done <- answer{e, err}
	}()
	select {
	case r := <-done:
		return r.evidence, classify(ctx, r.err)
	case <-ctx.Done():
		return enclave.Evidence{}, classify(ctx, ctx.Err())
	}
}

// evidence owns one entry from mkdir to rmdir.
func (a *Attester) evidence(ctx context.Context, reportData [64]byte) (ev enclave.Evidence, err error) {
	e, err := newEntry(a.root)
	if err != nil {
		return enclave.Evidence{}, err
	}
	defer func() {
		if errRemove := e.remove(); err == nil && errRemove != nil {
			ev, err = enclave.Evidence{}, errRemove
		}
	}()
	ev.Provider, err = e.provider()
	if err != nil {
		return enclave.Evidence{}, err
	}
	if ev.Provider != Provider {
		return enclave.Evidence{}, &enclave.Refusal{
			Code: CodeWrongProvider, Fault: enclave.FaultNode, Check: "attester",
			Reason: fmt.Sprintf("the kernel's report provider is %q, not %q", ev.Provider, Provider),
			Fix:    "boot this node as an SEV-SNP guest",
		}
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 250*time.Millisecond) {
		ev.Report, ev.Certificates, err = e.report(reportData)
		if err == nil || !isBusy(err) {
			return ev, err
		}
		select {
		case <-ctx.Done():
			return enclave.Evidence{}, fmt.Errorf("%w while the firmware is busy: %w", ctx.Err(), err)
		case <-time.After(wait):
		}
	}
}

// isBusy is true for what passes by itself: the firmware serves all guests of a host in turn,
// and another writer moved the entry's generation on.
func isBusy(err error) bool {
	return errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR) ||
		errors.Is(err, errGeneration)
}

// classify turns an error into the refusal that names what to do.
func classify(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := enclave.AsRefusal(err); ok {
		return err
	}
	r := &enclave.Refusal{
		Code: CodeNoReport, Fault: enclave.FaultNode, Check: "attester", Reason: "no report: " + err.Error(),
		Fix: "look for sev-guest in the kernel log of this node",
	}
	var path *fs.PathError
	switch {
	case errors.Is(err, errNoRoot):
		r.Code = CodeNoAttester
		r.Reason = "no SEV-SNP attester: " + err.Error()
		r.Fix = "boot this node as an SEV-SNP guest with kernel 6.7 or later, load sev-guest, mount configfs"
	case ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled):
		r.Code, r.Reason = CodeTimeout, "no report in time: "+err.Error()
		r.Fix = "see whether the host limits guest requests, or its firmware hangs"
	case errors.As(err, &path) && errors.Is(err, os.ErrPermission):
		r.Fix = "run as root"
	}
	return fmt.Errorf("get report: %w", errors.Join(r, err))
}
