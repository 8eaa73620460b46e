package filter

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/nftables"
)

// Names lists the tables of family inet that are ours, the closed fence's included.
func (Kernel) Names(ctx context.Context) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c, err := open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.CloseLasting() }()
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	var ours []string
	for _, t := range tables {
		if strings.HasPrefix(t.Name, "enclave_") {
			ours = append(ours, t.Name)
		}
	}
	return ours, nil
}
