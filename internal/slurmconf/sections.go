package slurmconf

import (
	"maps"
	"slices"
	"strings"
)

// sections are the first words of lines whose settings are not the cluster's.
var sections = []string{"nodename", "partitionname", "nodeset", "downnodes", "frontendname"}

func (r Record) section() string {
	if first := strings.ToLower(r[0].Key); slices.Contains(sections, first) {
		return first
	}
	return ""
}

// All are the values of a cluster-wide setting, in order: some may stand more than once.
func (c Conf) All(key string) []Value {
	var found []Value
	for _, r := range c.Records {
		if r.section() != "" {
			continue
		}
		for _, v := range r {
			if strings.EqualFold(v.Key, key) {
				found = append(found, v)
			}
		}
	}
	return found
}

// Get is the value of a cluster-wide setting. Of one that stands twice the later counts.
func (c Conf) Get(key string) (Value, bool) {
	all := c.All(key)
	if len(all) == 0 {
		return Value{}, false
	}
	return all[len(all)-1], true
}

// Values gives all cluster-wide settings, names in lower case.
func (c Conf) Values() map[string]string {
	values := map[string]string{}
	for _, r := range c.Records {
		if r.section() != "" {
			continue
		}
		for _, v := range r {
			values[strings.ToLower(v.Key)] = v.Text
		}
	}
	return values
}

// Section is one node line, partition or node set with its defaults filled in.
type Section struct {
	Name   string // a hostlist for nodes
	File   string
	Line   int
	values map[string]Value
}

// Get is a setting of the section, in any case of letters.
func (s Section) Get(key string) (Value, bool) {
	v, ok := s.values[strings.ToLower(key)]
	return v, ok
}

// Sections are the lines that begin with this word (NodeName, PartitionName, NodeSet). A line
// named DEFAULT sets the defaults of the lines after it.
func (c Conf) Sections(word string) []Section {
	var found []Section
	defaults := map[string]Value{}
	for _, r := range c.Records {
		if r.section() != strings.ToLower(word) {
			continue
		}
		values := maps.Clone(defaults)
		for _, v := range r[1:] {
			values[strings.ToLower(v.Key)] = v
		}
		if strings.EqualFold(r[0].Text, "DEFAULT") {
			defaults = values
			continue
		}
		found = append(found, Section{Name: r[0].Text, File: r[0].File, Line: r[0].Line, values: values})
	}
	return found
}
