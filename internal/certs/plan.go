package certs

import (
	"fmt"
	"slices"
	"time"
)

// listAge is how old a list may be before it is asked for again, however long AMD lets it live:
// what was revoked since stands in the new one only. A sync that was broken off finds it there.
const listAge = time.Hour

// Need is one chip's VCEK that somebody will want.
type Need struct {
	Key   Key
	Node  string // whose, for people
	Given []byte // the certificate, where the node's own host gave it: nobody is asked then
}

// Task is one file to get.
type Task struct {
	Kind      Kind
	Path      string
	Key       Key       // of a certificate
	Authority Authority // of a list or chain
	Node      string
	Given     []byte

	query string
}

func (t Task) String() string {
	switch t.Kind {
	case List:
		return "the revocation list of " + t.Authority.String()
	case Chain:
		return "the chain of " + t.Authority.String()
	}
	if t.Node == "" {
		return "the VCEK of " + t.Key.String()
	}
	return fmt.Sprintf("the VCEK of %s, %s", t.Node, t.Key)
}

// Plan says what is to be fetched: lists and chains of the authorities, then what is missing of
// the needs. What the store has and is good is left alone, so that a sync that was broken off
// goes on where it ended.
func Plan(needs []Need, authorities []Authority, store []Holding, at time.Time) []Task {
	good := map[string]Holding{}
	for _, h := range store {
		if h.Good(at) {
			good[h.Path] = h
		}
	}
	tasks := []Task{}
	add := func(t Task) {
		if !slices.ContainsFunc(tasks, func(o Task) bool { return o.Path == t.Path }) {
			tasks = append(tasks, t)
		}
	}
	for _, a := range authorities {
		if h, ok := good[a.ListPath()]; !ok || at.Sub(h.Written) > listAge {
			add(Task{Kind: List, Path: a.ListPath(), Authority: a, query: a.query("crl")})
		}
		if _, ok := good[a.ChainPath()]; !ok {
			add(Task{Kind: Chain, Path: a.ChainPath(), Authority: a, query: a.query("cert_chain")})
		}
	}
	for _, n := range needs {
		if _, ok := good[n.Key.Path()]; !ok && n.Key.Valid() {
			add(Task{Kind: Certificate, Path: n.Key.Path(), Key: n.Key, Node: n.Node, Given: n.Given, query: n.Key.query()})
		}
	}
	return tasks
}

// Missing is Plan for certificates alone: what the site's chips need and the store does not have.
func Missing(needs []Need, store []Holding, at time.Time) []Task { return Plan(needs, nil, store, at) }
