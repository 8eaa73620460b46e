package closed

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Store keeps the record: read and written whole, by root alone.
type Store interface {
	Read() ([]byte, error)
	Write(b []byte) error
}

// Node closes a node and compares it later. Clean closes it: tree hidden, fence up, leftovers of
// a crash gone.
type Node struct {
	Store   Store
	Boot    func() (string, error)
	Sources Sources
	Clean   func(ctx context.Context) error
}

// Close closes the node and records the state that it is then in. Nothing is recorded when
// closing failed: what a crash left must not become the state that others are measured by.
func (n Node) Close(ctx context.Context) error {
	if err := n.Clean(ctx); err != nil {
		return fmt.Errorf("close node: %w", err)
	}
	boot, err := n.Boot()
	if err != nil {
		return fmt.Errorf("close node: %w", err)
	}
	s, err := Take(ctx, boot, n.Sources)
	if err != nil {
		return fmt.Errorf("close node: %w", err)
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("close node: %w", err)
	}
	if err := n.Store.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("close node: %w", err)
	}
	return nil
}

// Check compares the node with its record. A record that cannot be read is one unknown check.
func (n Node) Check(ctx context.Context) []enclave.Check {
	unknown := func(err error) []enclave.Check {
		return []enclave.Check{{Name: "closed.record", Result: enclave.CheckUnknown, Reason: err.Error()}}
	}
	b, err := n.Store.Read()
	if err != nil {
		return unknown(err)
	}
	recorded, err := Parse(b)
	if err != nil {
		return unknown(err)
	}
	boot, err := n.Boot()
	if err != nil {
		return unknown(err)
	}
	return Compare(ctx, recorded, boot, n.Sources)
}
