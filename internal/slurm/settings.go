package slurm

import (
	"context"
	"fmt"
	"strings"
)

// Settings is what slurmctld runs with: `scontrol show config`, names in lower case. A value that
// is not set, "(null)" or "N/A", is left out. From 24.11 on the scripts have numbers, "Prolog[0]":
// several of one name are told under that name, with commas.
func (c *CLI) Settings(ctx context.Context) (map[string]string, error) {
	out, err := c.run.Run(ctx, "scontrol", "show", "config")
	if err != nil {
		return nil, fmt.Errorf("show configuration: %w", classify(err))
	}
	return parseSettings(string(out)), nil
}

func parseSettings(text string) map[string]string {
	found := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(line, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if !ok || key == "" || strings.ContainsAny(key, " \t") || value == "" || value == "(null)" || value == "N/A" {
			continue
		}
		key = strings.ToLower(key)
		if name, index, numbered := strings.Cut(key, "["); numbered && strings.Trim(index, "0123456789]") == "" {
			key = name
			if first, several := found[key]; several {
				value = first + "," + value
			}
		}
		found[key] = value
	}
	return found
}

// AdminLevel is a user's level in the accounting database: None, Operator or Administrator; ""
// for a user that it does not know.
func (c *CLI) AdminLevel(ctx context.Context, user string) (string, error) {
	out, err := c.run.Run(ctx, "sacctmgr", "-n", "-P", "show", "user", "name="+user, "format=AdminLevel")
	if err != nil {
		return "", fmt.Errorf("show user %s: %w", user, classify(err))
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line), nil
}
