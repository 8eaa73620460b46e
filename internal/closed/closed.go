// Package closed holds the closed state of a node, which it is in when no job runs, and says in
// which lines the node differs from it.
//
// The state is recorded at boot, before slurmd starts, and compared after every job: no key,
// interface, rule, mount, process or file of ours or the job's may be left. The package compares
// lines of text; what they say is the business of those who list them. It repairs nothing.
package closed

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// CodeDiffers is the code of a node that does not equal its closed state.
const CodeDiffers enclave.Code = "E245"

// Version is the only version of the record.
const Version = "slurm-enclave-closed/2"

// Snapshot is a node's state: one line of text per thing, each list sorted.
type Snapshot struct {
	Version   string   `json:"version"`
	Boot      string   `json:"boot"`
	Links     []string `json:"links"`
	Rules     []string `json:"rules"`
	Routes    []string `json:"routes"`
	Tables    []string `json:"tables"`
	Sockets   []string `json:"sockets"`
	Mounts    []string `json:"mounts"`
	Processes []string `json:"processes"`
	Files     []string `json:"files"`
	IPC       []string `json:"ipc"`
}

// Source lists one kind of things.
type Source func(ctx context.Context) ([]string, error)

// Sources list everything that a closed state consists of. A missing source is an error where it
// is needed: what nobody looks at is not known to be clean.
type Sources struct {
	Links     Source // interfaces of ours, enc*
	Rules     Source // policy routing rules of ours
	Routes    Source // in routing tables of ours
	Tables    Source // nftables tables of ours
	Sockets   Source // of tunnels, and of people
	Mounts    Source // on our paths, and of network file systems
	Processes Source // of people, and keepers
	Files     Source // in /run/slurm-enclave
	IPC       Source // of people
}

// kind is one list of a snapshot. Of some kinds less than recorded is as good: a file that has
// gone is no leftover, but a packet filter that has gone is an open door.
type kind struct {
	name   string
	source Source
	list   func(*Snapshot) *[]string
	less   bool
}

func (s Sources) kinds() []kind {
	return []kind{
		{"links", s.Links, func(s *Snapshot) *[]string { return &s.Links }, false},
		{"rules", s.Rules, func(s *Snapshot) *[]string { return &s.Rules }, false},
		{"routes", s.Routes, func(s *Snapshot) *[]string { return &s.Routes }, false},
		{"tables", s.Tables, func(s *Snapshot) *[]string { return &s.Tables }, false},
		{"sockets", s.Sockets, func(s *Snapshot) *[]string { return &s.Sockets }, true},
		{"mounts", s.Mounts, func(s *Snapshot) *[]string { return &s.Mounts }, false},
		{"processes", s.Processes, func(s *Snapshot) *[]string { return &s.Processes }, true},
		{"files", s.Files, func(s *Snapshot) *[]string { return &s.Files }, true},
		{"ipc", s.IPC, func(s *Snapshot) *[]string { return &s.IPC }, true},
	}
}

// Take reads the node's state. It fails when one kind cannot be listed.
func Take(ctx context.Context, boot string, sources Sources) (Snapshot, error) {
	s := Snapshot{Version: Version, Boot: boot}
	for _, k := range sources.kinds() {
		lines, err := k.read(ctx)
		if err != nil {
			return Snapshot{}, fmt.Errorf("take closed state: %w", err)
		}
		*k.list(&s) = lines
	}
	return s, nil
}

func (k kind) read(ctx context.Context) ([]string, error) {
	if k.source == nil {
		return nil, fmt.Errorf("%s: nobody lists them", k.name)
	}
	lines, err := k.source(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.name, err)
	}
	sorted := append([]string{}, lines...) // never nil: an empty list is not a missing one
	slices.Sort(sorted)
	return sorted, nil
}

// Compare holds the node against its recorded state, one check per kind. A kind that cannot be
// listed is unknown, never a pass.
func Compare(ctx context.Context, recorded Snapshot, boot string, sources Sources) []enclave.Check {
	checks := []enclave.Check{{Name: "closed.boot", Result: enclave.CheckPass}}
	if recorded.Boot != boot || boot == "" {
		checks[0].Result = enclave.CheckUnknown
		checks[0].Reason = "the closed state was recorded in another boot"
	}
	for _, k := range sources.kinds() {
		c := enclave.Check{Name: "closed." + k.name, Result: enclave.CheckPass}
		lines, err := k.read(ctx)
		if err != nil {
			c.Result, c.Reason = enclave.CheckUnknown, err.Error()
		} else if d := difference(*k.list(&recorded), lines, k.less); len(d) > 0 {
			c.Result, c.Reason = enclave.CheckFail, strings.Join(d, "; ")
		}
		checks = append(checks, c)
	}
	return checks
}

// difference lists what is more than recorded as "+ line" and what is less as "- line". Lines
// that are there twice count twice.
func difference(recorded, now []string, lessIsGood bool) []string {
	count := map[string]int{}
	for _, line := range recorded {
		count[line]--
	}
	for _, line := range now {
		count[line]++
	}
	var d []string
	for line, n := range count {
		for ; n > 0; n-- {
			d = append(d, "+ "+line)
		}
		for ; n < 0 && !lessIsGood; n++ {
			d = append(d, "- "+line)
		}
	}
	slices.Sort(d)
	return d
}

// Refuse makes the refusal of a node that differs, or nil.
func Refuse(checks []enclave.Check) *enclave.Refusal {
	var reasons []string
	for _, c := range checks {
		if c.Result != enclave.CheckPass {
			reasons = append(reasons, strings.TrimPrefix(c.Name, "closed.")+": "+c.Reason)
		}
	}
	if len(reasons) == 0 && len(checks) > 0 {
		return nil
	}
	text := strings.Join(reasons, "; ")
	if len(checks) == 0 {
		text = "nothing was compared"
	}
	const most = 400
	if len(text) > most {
		text = text[:most] + "..."
	}
	r := enclave.Refuse(CodeDiffers, enclave.FaultNode, "the node differs from its closed state: %s", text)
	r.Check, r.Fix = "closed", "see enclave host check, clean up or reboot"
	return r
}

// Parse reads a record.
func Parse(b []byte) (Snapshot, error) {
	var s Snapshot
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	err := d.Decode(&s)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("more than one value")
		}
	}
	if err == nil && (s.Version != Version || s.Boot == "") {
		err = fmt.Errorf("version %q, boot %q", s.Version, s.Boot)
	}
	for _, k := range (Sources{}).kinds() {
		if err == nil && *k.list(&s) == nil {
			err = fmt.Errorf("no list of %s", k.name)
		}
	}
	if err != nil {
		return Snapshot{}, fmt.Errorf("parse closed state: %w", err)
	}
	return s, nil
}
