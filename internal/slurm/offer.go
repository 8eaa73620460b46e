package slurm

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The versions of slurmrestd's API that the driver was tried with: 22.05 has 36 to 38, 24.11 has 40 to
// 42, 26.05 has 42 to 45. The answers of 39 lie between those of 38 and 40.
const (
	oldestAPI = 36
	newestAPI = 45
)

// Duty is one thing that a driver is asked to do.
type Duty string

// The duties of a driver, by the words that logs use.
const (
	DutyJob           Duty = "read job"
	DutyStoredComment Duty = "read admin comment in accounting"
	DutyNode          Duty = "read node"
	DutyComment       Duty = "set admin comment"
	DutyStore         Duty = "set admin comment in accounting"
	DutyNodeState     Duty = "drain and resume node"
	DutyRequeue       Duty = "requeue job"
	DutyCancel        Duty = "cancel job"
	DutyNotify        Duty = "notify job" // slurmrestd has no such call
)

// call is how slurmrestd is asked for a duty, and what it must offer for the answer to be of use.
type call struct {
	duty   Duty
	method string // as the document spells it
	path   string // VERSION stands for the version
	list   string // of the answer, "" when the fields are the request's
	fields []string
}

// calls is the whole of what the driver uses. A server whose document lacks a call, or one of its
// fields, is not asked: that duty is then the commands' (REST.ByCommand).
func calls() []call {
	const job, node, stored = "/slurm/VERSION/job/{job_id}", "/slurm/VERSION/node/{node_name}", "/slurmdb/VERSION/job/{job_id}"
	return []call{
		{DutyJob, "get", job, "jobs", []string{
			"job_id", "job_state", "restart_cnt", "requeue", "batch_flag", "user_id", "time_limit", "partition", "account",
			"nodes", "exit_code", "allocating_node", "admin_comment",
		}},
		{DutyStoredComment, "get", stored, "jobs", []string{"job_id", "comment", "time"}},
		{DutyNode, "get", node, "nodes", []string{"name", "state", "reason"}},
		{DutyComment, "post", job, "", []string{"admin_comment"}},
		{DutyStore, "post", stored, "", []string{"comment"}},
		{DutyNodeState, "post", node, "", []string{"state", "reason"}},
		{DutyRequeue, "post", "/slurm/VERSION/jobs/requeue", "", []string{"jobs"}},
		{DutyCancel, "delete", job, "", nil},
	}
}

// offer is what one server offers in the version that is used.
type offer struct {
	version string
	paths   map[Duty]string
}

// has is true when REST can do it.
func (o offer) has(d Duty) bool { return o.paths[d] != "" }

// document is slurmrestd's OpenAPI document, as far as the driver reads it.
type document struct {
	Paths      map[string]map[string]json.RawMessage `json:"paths"`
	Components struct {
		Schemas map[string]json.RawMessage `json:"schemas"`
	} `json:"components"`
}

// parseOffer reads the document and chooses a version: the highest that the driver knows. Of a server
// that has newer ones alone, the lowest of them is the nearest to what the driver was tried with; what
// they have renamed is found missing here, and what they have added is no concern of ours.
func parseOffer(b []byte) (offer, error) {
	var d document
	if err := json.Unmarshal(b, &d); err != nil {
		return offer{}, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	n, err := choose(d.versions())
	if err != nil {
		return offer{}, err
	}
	o := offer{version: versionName(n), paths: map[Duty]string{}}
	for _, c := range calls() {
		path := strings.ReplaceAll(c.path, "VERSION", o.version)
		if d.offers(c, path) {
			o.paths[c.duty] = path
		}
	}
	if len(o.paths) == 0 {
		return offer{}, fmt.Errorf("%s offers no call that is of use here", o.version)
	}
	return o, nil
}

func versionName(n int) string { return "v0.0." + strconv.Itoa(n) }

// versions are the numbers of the API versions that the paths begin with, each once.
func (d document) versions() []int {
	var all []int
	for path := range d.Paths {
		rest, ok := strings.CutPrefix(path, "/slurm/v0.0.")
		if !ok {
			continue
		}
		digits, _, _ := strings.Cut(rest, "/")
		if n, err := strconv.ParseUint(digits, 10, 15); err == nil && digits == strconv.Itoa(int(n)) && !slices.Contains(all, int(n)) {
			all = append(all, int(n))
		}
	}
	slices.Sort(all)
	return all
}

func choose(offered []int) (int, error) {
	best := 0
	for _, n := range offered { // in rising order
		switch {
		case n >= oldestAPI && n <= newestAPI:
			best = n
		case n > newestAPI && best == 0:
			return n, nil
		}
	}
	if best == 0 {
		return 0, fmt.Errorf("%w: %v, want %s or newer", ErrVersion, offered, versionName(oldestAPI))
	}
	return best, nil
}

// ErrVersion says that a server has no version of the API that can be used.
var ErrVersion = errors.New("slurmrestd offers no usable version of its API")

// operation is one method of a path.
type operation struct {
	RequestBody content            `json:"requestBody"`
	Responses   map[string]content `json:"responses"`
}

type content struct {
	Content map[string]struct {
		Schema json.RawMessage `json:"schema"`
	} `json:"content"`
}

// schema is a type: a reference, an object, or a list.
type schema struct {
	Ref        string                     `json:"$ref"`
	Properties map[string]json.RawMessage `json:"properties"`
	Items      json.RawMessage            `json:"items"`
}

// offers looks for the path, the method and every field.
func (d document) offers(c call, path string) bool {
	raw, ok := d.Paths[path][c.method]
	if !ok {
		return false
	}
	var o operation
	if json.Unmarshal(raw, &o) != nil {
		return false
	}
	if len(c.fields) == 0 {
		return true
	}
	body := o.RequestBody
	if c.list != "" {
		body = o.Responses["200"]
	}
	s := d.resolve(body.Content["application/json"].Schema)
	if c.list != "" {
		s = d.resolve(d.resolve(s.Properties[c.list]).Items)
	}
	return !slices.ContainsFunc(c.fields, func(f string) bool { return s.Properties[f] == nil })
}

// maxReferences bounds a chain of references, which a broken document may close to a ring.
const maxReferences = 8

func (d document) resolve(raw json.RawMessage) schema {
	for range maxReferences {
		var s schema
		if raw == nil || json.Unmarshal(raw, &s) != nil {
			return schema{}
		}
		if s.Ref == "" {
			return s
		}
		raw = d.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")]
	}
	return schema{}
}
