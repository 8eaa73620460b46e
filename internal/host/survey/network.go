package survey

import (
	"context"
	"fmt"
	"net"

	"github.com/slurm-enclave/slurm-enclave/internal/closed"
	"github.com/slurm-enclave/slurm-enclave/internal/host/filter"
	"github.com/slurm-enclave/slurm-enclave/internal/host/link"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
)

// Network lists the network's part of a closed state.
func Network() closed.Sources {
	return closed.Sources{Links: links, Rules: rules, Routes: routes, Tables: filter.Kernel{}.Names}
}

func links(context.Context) ([]string, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var ours []string
	for _, i := range all {
		if mesh.IsDevice(i.Name) {
			ours = append(ours, i.Name)
		}
	}
	return ours, nil
}

func rules(ctx context.Context) ([]string, error) {
	all, err := link.Kernel{}.Rules(ctx)
	if err != nil {
		return nil, err
	}
	var ours []string
	for _, r := range all {
		if r.Ours() {
			ours = append(ours, r.String())
		}
	}
	return ours, nil
}

// routes are those in tables of ours, whatever job's.
func routes(ctx context.Context) ([]string, error) {
	all, err := link.Kernel{}.Routes(ctx, 0)
	if err != nil {
		return nil, err
	}
	var ours []string
	for _, r := range all {
		if mesh.IsTable(r.Table) {
			ours = append(ours, fmt.Sprintf("table %#x: %s dev %s", r.Table, r.To, r.Device))
		}
	}
	return ours, nil
}
