package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Lab is the one-machine lab as seen from outside, through its program. In it the baseline can
// be brought up, too: there is a root who may.
type Lab struct {
	Program Shell // runs enclave-lab with these arguments
	Says    func(text string)

	ours bool // brought up here
	vpn  *VPN
}

// The lab's hosts that are used, and what the tunnel between the plain ones is.
const (
	labUser    = "alice"
	labHome    = "/home/alice"
	labNodes   = 2
	vpnPort    = 11940
	vpnNetwork = "10.94.0.0/24"
)

// labShell runs programs on one host of the lab.
type labShell struct {
	lab        Shell
	host, user string
}

// Run runs it there.
func (s labShell) Run(ctx context.Context, input string, argv ...string) (string, error) {
	return s.lab.Run(ctx, input, append([]string{"exec", s.host, "--user", s.user, "--"}, argv...)...)
}

// Up finds the lab up, or brings it up, and has b submit there.
func (l *Lab) Up(ctx context.Context, b *Bench) error {
	b.Slurm, b.Directory, b.Crowded = labShell{l.Program, "login", labUser}, labHome, true
	if _, err := l.Program.Run(ctx, "", "status"); err == nil {
		return l.check(ctx)
	}
	l.Says("bringing the lab up")
	out, err := l.Program.Run(ctx, "", "up", "--nodes", fmt.Sprint(labNodes), "--plain", fmt.Sprint(labNodes))
	if err != nil {
		return fmt.Errorf("bring the lab up: %w: %s", err, tail(out))
	}
	l.ours = true
	return l.check(ctx)
}

// check wants two nodes of each partition.
func (l *Lab) check(ctx context.Context) error {
	for _, host := range []string{"c2", "n2"} {
		if _, err := (labShell{l.Program, host, "root"}).Run(ctx, "", "true"); err != nil {
			return fmt.Errorf("find %s: the lab that is up has too few nodes. enclave-lab down, or enclave-lab up --nodes 2 --plain 2: %w", host, err)
		}
	}
	return nil
}

// Baseline joins the plain nodes by OpenVPN. What can't be is a note, and no row.
func (l *Lab) Baseline(ctx context.Context, b *Bench) error {
	v := &VPN{Network: netip.MustParsePrefix(vpnNetwork), Port: vpnPort}
	for i, host := range []string{"c1", "c2"} {
		shell := labShell{l.Program, host, "root"}
		out, err := shell.Run(ctx, "", "getent", "ahostsv4", host)
		if err != nil {
			return fmt.Errorf("find the address of %s: %w", host, err)
		}
		word, _, _ := strings.Cut(out, " ")
		address, err := netip.ParseAddr(word)
		if err != nil {
			return fmt.Errorf("find the address of %s: %w", host, err)
		}
		v.Ends[i] = End{Name: host, Shell: shell, Address: address}
	}
	if why := v.Missing(ctx); why != "" {
		b.notes = append(b.notes, "no row openvpn: "+why)
		return nil
	}
	l.vpn = v
	if err := v.Up(ctx); err != nil {
		return err
	}
	b.Tunnel = v.Network
	return nil
}

// Down undoes what was done here, and leaves a lab that was up before as it was.
func (l *Lab) Down(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	var errs error
	if l.vpn != nil {
		errs = l.vpn.Down(ctx)
	}
	if l.ours {
		if _, err := l.Program.Run(ctx, "", "down"); err != nil {
			errs = errors.Join(errs, fmt.Errorf("take the lab down: %w", err))
		}
	}
	return errs
}
