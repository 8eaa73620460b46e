package attesttest

import (
	"bytes"
	"context"
	"crypto/sha512"
	"fmt"
	"sync"
	"syscall"
	"time"
)

// reportTime is what a report takes on real hardware (reference: 8 ms). Reports are made one
// after the other: a machine has one security processor.
const reportTime = 8 * time.Millisecond

// Firmware is the security processor of one lab node.
type Firmware struct {
	hierarchy *Hierarchy
	node      string
	faults    string // path

	psp      sync.Mutex
	previous [64]byte         // the question before, for replays
	derived  map[string]*Chip // chips that faults made
}

// NewFirmware is the processor of a node; faults is the path of its faults file, or "".
func NewFirmware(h *Hierarchy, node, faults string) (*Firmware, error) {
	if _, err := h.Chip(node); err != nil {
		return nil, err
	}
	return &Firmware{hierarchy: h, node: node, faults: faults, derived: map[string]*Chip{}}, nil
}

// Report answers one question, with the certificate table. The error is what the kernel's
// driver would return.
func (w *Firmware) Report(ctx context.Context, question [64]byte) (report, table []byte, err error) {
	w.psp.Lock()
	defer w.psp.Unlock()
	f, err := loadFaults(w.faults)
	if err != nil {
		return nil, nil, err
	}
	select {
	case <-ctx.Done():
		return nil, nil, syscall.EINTR
	case <-time.After(reportTime + time.Duration(f.Slow)*time.Millisecond):
	}
	if f.NoReport {
		return nil, nil, syscall.EIO
	}
	chip, err := w.chip(f)
	if err != nil {
		return nil, nil, err
	}
	asked := question
	if f.Replay {
		asked = w.previous
	}
	w.previous = question
	r := chip.Report(asked)
	if f.DebugPolicy {
		r.Policy |= PolicyDebug
	}
	if f.WrongMeasurement {
		r.Measurement = sha512.Sum384([]byte("another launch digest"))
	}
	signer := chip
	if f.WrongKey {
		if signer, err = w.derive("wrong key", func() (*Chip, error) { return chip.At(chip.TCB) }); err != nil {
			return nil, nil, err
		}
	}
	if report, err = signer.Signed(r); err != nil {
		return nil, nil, err
	}
	if f.Truncated {
		report = report[:len(report)-1]
	}
	if !f.NoCertificates {
		table = chip.Table()
	}
	return report, bytes.Clone(table), nil
}

func (w *Firmware) chip(f Faults) (*Chip, error) {
	node := w.node
	if f.OtherChip != "" {
		node = f.OtherChip
	}
	chip, err := w.derive("node "+node, func() (*Chip, error) { return w.hierarchy.Chip(node) })
	if err != nil || !f.OldTCB {
		return chip, err
	}
	return w.derive("old tcb "+node, func() (*Chip, error) { return chip.At(OldTCB()) })
}

func (w *Firmware) derive(name string, build func() (*Chip, error)) (*Chip, error) {
	if c := w.derived[name]; c != nil {
		return c, nil
	}
	c, err := build()
	if err != nil {
		return nil, fmt.Errorf("make chip for a fault: %w", err)
	}
	w.derived[name] = c
	return c, nil
}
