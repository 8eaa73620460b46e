package enclave

import (
	"errors"
	"fmt"
)

// Fault says whose a refusal is. It decides who pays: the zero value is nobody's.
type Fault string

// The four faults. Only FaultNode may ever drain a node.
const (
	FaultRequest Fault = "request" // the user asked for what can't be had: the job fails
	FaultNode    Fault = "node"    // this node is broken: it is drained, the job is requeued
	FaultService Fault = "service" // somebody else can't answer now: the job is requeued
	FaultPolicy  Fault = "policy"  // the policy refuses many nodes at once: alarm, jobs wait
)

// Code is a stable error code, "E" and three digits: 0xx configuration, 1xx request, 2xx node,
// 3xx storage, 4xx network, 5xx service and policy.
type Code string

// Refusal is a decision against a job or a node. It is an error that callers branch on.
type Refusal struct {
	Code   Code   `json:"code"`
	Fault  Fault  `json:"fault"`
	Node   string `json:"node,omitempty"` // NodeName when the fault is a node's
	Check  string `json:"check,omitempty"`
	Reason string `json:"reason"` // one sentence, lower case, no secret
	Fix    string `json:"fix,omitempty"`
}

// Error is "E207 n2: reason (fix)".
func (r *Refusal) Error() string {
	s := string(r.Code) + " "
	if r.Node != "" {
		s += r.Node + ": "
	}
	s += r.Reason
	if r.Fix != "" {
		s += " (" + r.Fix + ")"
	}
	return s
}

// Refuse makes a refusal with a formatted reason.
func Refuse(code Code, fault Fault, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Fault: fault, Reason: fmt.Sprintf(format, args...)}
}

// AsRefusal finds the refusal in err's chain.
func AsRefusal(err error) (*Refusal, bool) {
	return errors.AsType[*Refusal](err)
}
