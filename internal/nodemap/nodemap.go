// Package nodemap writes the stanza by which a Lustre file system's servers hold a tenant to its
// subtree, and compares it with what an MGS says it has. It runs nothing on the servers: their
// operator does, and sees what. Who calls it: `enclave storage nodemap`.
//
// A nodemap knows clients by their NIDs, and a NID is in one nodemap at a time, so nodes serve one
// tenant for as long as the stanza stands. The names are those of Lustre 2.17; an older server
// says which it does not have.
package nodemap

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Tenant is what the servers shall hold.
type Tenant struct {
	Name    string
	Subtree string   // relative to the file system's root
	NIDs    []string // "10.9.7.2@tcp7"
	Offset  uint32   // added to every id of the clients; 0 maps none but those of IDs
	Limit   uint32   // how many ids
	IDs     []IDMap
}

// IDMap is one id of the clients and what it is on the servers.
type IDMap struct {
	Kind           string // uid, gid or projid
	Client, Server uint32
}

// ParseIDMap reads "uid:1001:61001".
func ParseIDMap(s string) (IDMap, error) {
	f := strings.Split(s, ":")
	if len(f) == 3 && slices.Contains([]string{"uid", "gid", "projid"}, f[0]) {
		client, errClient := strconv.ParseUint(f[1], 10, 32)
		server, errServer := strconv.ParseUint(f[2], 10, 32)
		if errClient == nil && errServer == nil && client != 0 && server != 0 {
			return IDMap{f[0], uint32(client), uint32(server)}, nil
		}
	}
	return IDMap{}, fmt.Errorf("parse id map %q: want uid|gid|projid:CLIENT:SERVER, and not root's", s)
}

// ID is the tenant's name among the nodemaps; 16 bytes are what Lustre keeps.
func (t Tenant) ID() string {
	const most = 16
	name := "t_" + strings.ReplaceAll(t.Name, "-", "_")
	return name[:min(len(name), most)]
}

// properties are the switches of the tenant's nodemap and why, in order.
func properties() [][3]string {
	return [][3]string{
		{"admin", "0", "root of a client is squashed"},
		{"trusted", "0", "ids are mapped"},
		{"deny_unknown", "1", "an id that is not mapped has no access"},
		{"rbac", "file_perms", "no files by FID, no changelogs, no quotas, no project ids"},
	}
}

// Stanza is what the MGS's operator runs, one command per line.
func Stanza(t Tenant) []string {
	id := t.ID()
	lines := []string{"lctl nodemap_activate 1", "lctl nodemap_add " + id}
	for _, nid := range t.NIDs {
		lines = append(lines, "lctl nodemap_add_range --name "+id+" --range "+nid)
	}
	lines = append(lines, "lctl nodemap_fileset_add --name "+id+" --fileset /"+t.Subtree)
	for _, p := range properties() {
		lines = append(lines, fmt.Sprintf("lctl nodemap_modify --name %s --property %s=%s", id, p[0], p[1]))
	}
	if t.Offset != 0 {
		lines = append(lines, fmt.Sprintf("lctl nodemap_add_offset --name %s --offset %d --limit %d", id, t.Offset, t.Limit))
	}
	for _, m := range t.IDs {
		lines = append(lines, fmt.Sprintf("lctl nodemap_add_idmap --name %s --idtype %s --idmap %d:%d", id, m.Kind, m.Client, m.Server))
	}
	return append(lines,
		"lctl nodemap_set_cap --name "+id+" --caps 0 --type mask",
		"lctl nodemap_modify --name default --property deny_mount=1")
}

// Check compares what `lctl get_param 'nodemap.*' 'nodemap.*.*'` printed on an MGS with the stanza.
// A value that was not printed is unknown, never a pass.
func Check(t Tenant, r io.Reader) ([]enclave.Check, error) {
	values, err := parse(r)
	if err != nil {
		return nil, err
	}
	id := "nodemap." + t.ID() + "."
	checks := []enclave.Check{
		equal(values, "nodemap.active", "1", "no nodemap holds anybody"),
		fileset(values, id, "/"+t.Subtree),
	}
	for _, p := range properties() {
		key := id + p[0]
		if _, ok := values[key]; !ok {
			key = id + p[0] + "_nodemap" // as servers before 2.17 call admin and trusted
		}
		c := equal(values, key, p[1], p[2])
		c.Name = "nodemap." + p[0]
		checks = append(checks, c)
	}
	for _, nid := range t.NIDs {
		checks = append(checks, held(values, id+"ranges", "nodemap.range", nid, address(nid)))
	}
	for _, m := range t.IDs {
		checks = append(checks, held(values, id+"idmap", "nodemap.idmap", fmt.Sprintf("%s %d", m.Kind, m.Client),
			fmt.Sprintf("idtype: %s, client_id: %d, fs_id: %d", m.Kind, m.Client, m.Server)))
	}
	strangers := equal(values, "nodemap.default.deny_mount", "1", "strangers can mount")
	strangers.Name = "nodemap.default"
	return append(checks, strangers), nil
}

// address is what a range's printed form begins and ends with, when it is of one NID.
func address(nid string) string { return "start_nid: " + nid + ", end_nid: " + nid }

func equal(values map[string]string, key, want, why string) enclave.Check {
	c := enclave.Check{Name: key, Result: enclave.CheckPass}
	switch got, ok := values[key]; {
	case !ok:
		c.Result, c.Reason = enclave.CheckUnknown, key+" was not printed"
	case got != want:
		c.Result, c.Reason = enclave.CheckFail, fmt.Sprintf("%s is %q, not %q: %s", key, got, want, why)
	}
	return c
}

func fileset(values map[string]string, id, want string) enclave.Check {
	c := enclave.Check{Name: "nodemap.fileset", Result: enclave.CheckPass}
	got, ok := values[id+"fileset"]
	for word := range strings.FieldsSeq(strings.NewReplacer("[", " ", "]", " ", "{", " ", "}", " ", ",", " ").Replace(got)) {
		if strings.HasPrefix(word, "/") && word != want {
			c.Result, c.Reason = enclave.CheckFail, "the fileset "+word+" is there, too"
			return c
		}
	}
	switch {
	case !ok:
		c.Result, c.Reason = enclave.CheckUnknown, id+"fileset was not printed"
	case !strings.Contains(got, want):
		c.Result, c.Reason = enclave.CheckFail, fmt.Sprintf("fileset %q, not %s", got, want)
	}
	return c
}

func held(values map[string]string, key, name, what, want string) enclave.Check {
	c := enclave.Check{Name: name, Result: enclave.CheckPass}
	switch got, ok := values[key]; {
	case !ok:
		c.Result, c.Reason = enclave.CheckUnknown, key+" was not printed"
	case !strings.Contains(got, want):
		c.Result, c.Reason = enclave.CheckFail, key+" does not hold "+what
	}
	return c
}

// parse reads lines of "name=value"; the lines of a list follow its name until "]".
func parse(r io.Reader) (map[string]string, error) {
	values := map[string]string{}
	key := ""
	s := bufio.NewScanner(r)
	for s.Scan() {
		line := strings.TrimSpace(s.Text())
		name, value, ok := strings.Cut(line, "=")
		switch {
		case ok && strings.HasPrefix(name, "nodemap."):
			values[name] = strings.TrimSpace(value)
			if key = ""; values[name] == "" || strings.HasPrefix(values[name], "[") {
				key = name
			}
		case key != "":
			values[key] += " " + line
		case line != "":
			return nil, fmt.Errorf("parse nodemaps: %q is not NAME=VALUE of lctl get_param", line)
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("parse nodemaps: %w", err)
	}
	return values, nil
}
