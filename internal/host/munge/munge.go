// Package munge makes and opens munge credentials with the programs of the same names: they say
// which uid asked, on any host of the cluster.
//
// It starts the two programs and reads what they print. Who may ask what is not decided here.
package munge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// Bounds of what is passed on to munged.
const (
	maxCredential = 4096
	maxPayload    = 1024
)

// Munge runs the programs at these paths; the zero value uses the system's.
type Munge struct{ MungePath, UnmungePath string }

func or(path, preset string) string {
	if path == "" {
		return preset
	}
	return path
}

// Encode makes a credential of the caller's uid over a payload, which is no secret.
func (m Munge) Encode(ctx context.Context, payload string) (string, error) {
	out, err := run(ctx, payload, or(m.MungePath, "/usr/bin/munge"))
	if err != nil {
		return "", fmt.Errorf("make munge credential: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Decode opens a credential. munged refuses expired and replayed ones.
func (m Munge) Decode(ctx context.Context, credential string) (uid uint32, payload string, err error) {
	if len(credential) > maxCredential || !strings.HasPrefix(credential, "MUNGE:") {
		return 0, "", errors.New("open munge credential: not one")
	}
	out, err := run(ctx, credential, or(m.UnmungePath, "/usr/bin/unmunge"))
	if err != nil {
		return 0, "", fmt.Errorf("open munge credential: %w", err)
	}
	uid, payload, err = parse(out)
	if err != nil {
		return 0, "", fmt.Errorf("open munge credential: %w", err)
	}
	return uid, payload, nil
}

func run(ctx context.Context, input, path string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = []string{"LC_ALL=C"}
	cmd.Stdin = strings.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("run %s: %w: %s", path, err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}

// parse reads unmunge's output: lines "KEY: value", an empty line, the payload as it was.
func parse(out []byte) (uint32, string, error) {
	head, payload, ok := strings.Cut(string(out), "\n\n")
	if !ok || len(payload) > maxPayload {
		return 0, "", errors.New("unmunge printed something else")
	}
	fields := map[string]string{}
	for line := range strings.SplitSeq(head, "\n") {
		key, value, ok := strings.Cut(line, ":")
		if _, twice := fields[key]; !ok || twice {
			return 0, "", errors.New("unmunge printed something else")
		}
		fields[key] = strings.TrimSpace(value)
	}
	if status := fields["STATUS"]; status != "Success (0)" {
		return 0, "", fmt.Errorf("status %q", status)
	}
	number := fields["UID"] // "alice (2001)", or the number when the uid has no name
	if i := strings.LastIndex(number, "("); i >= 0 {
		number = strings.TrimSuffix(number[i+1:], ")")
	}
	uid, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return 0, "", fmt.Errorf("uid %q", fields["UID"])
	}
	return uint32(uid), payload, nil
}
