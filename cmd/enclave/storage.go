package main

import (
	"bytes"
	"os"

	"github.com/slurm-enclave/slurm-enclave/internal/cli"
	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/host/mount"
	"github.com/slurm-enclave/slurm-enclave/internal/tenants"
)

// tree is this host's Lustre.
type tree struct{}

func (tree) FID(root, subtree string) (enclave.FID, error) {
	return mount.Lustre{}.Lookup(root, subtree)
}

// estate reads the two tables that the configuration names.
func estate(path string) (cli.Estate, error) {
	cfg, _, err := load(path)
	if err != nil {
		return cli.Estate{}, err
	}
	text, err := os.ReadFile(cfg.Controller.Tenants)
	if err != nil {
		return cli.Estate{}, err
	}
	table, err := tenants.Load(bytes.NewReader(text))
	if err != nil {
		return cli.Estate{}, err
	}
	if text, err = os.ReadFile(cfg.Controller.Inventory); err != nil {
		return cli.Estate{}, err
	}
	inventory, err := config.LoadInventory(bytes.NewReader(text))
	return cli.Estate{Tenants: table.Tenants, Nodes: inventory.Nodes}, err
}
