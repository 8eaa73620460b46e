package scale

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/roster"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// traffic is what the roster and everything else weighed.
type traffic struct {
	answers, leaves int64 // bodies of all nodes
	fetched         int   // nodes that took all leaves
	in, out         int64 // of the nodes' connections, TLS included
}

func (r *run) traffic() (traffic, error) {
	var t traffic
	var one int64 // all leaves are the same
	for _, n := range r.nodes {
		b, err := size(api.EvidenceAnswer{Answer: n.answer})
		if err != nil {
			return t, err
		}
		t.answers, t.in, t.out = t.answers+b, t.in+n.in.Load(), t.out+n.out.Load()
		if n.leaves == nil {
			continue
		}
		if one == 0 {
			b, err := roster.Pack(n.leaves)
			if err != nil {
				return t, err
			}
			one = int64(len(b))
		}
		t.leaves, t.fetched = t.leaves+one, t.fetched+1
	}
	return t, nil
}

// report prints what a start that came to GO took. cpu_s is enclaved's from the last evidence to
// the last GO, verify_ratio its whole work for the job, registration and nonces included, as a
// multiple of n bare verifications of P-384.
func (r *run) report(bare time.Duration) error {
	t, err := r.traffic()
	if err != nil {
		return err
	}
	peak, err := r.enclaved.peak()
	if err != nil {
		return err
	}
	first, last, slowest, lastGo := r.nodes[0].posted, r.nodes[0].posted, r.nodes[0], time.Time{}
	for _, n := range r.nodes {
		if n.posted.Before(first) {
			first = n.posted
		}
		if n.posted.After(last) {
			last = n.posted
		}
		if n.gone.After(lastGo) {
			lastGo = n.gone
		}
		if n.gone.Sub(n.posted) > slowest.gone.Sub(slowest.posted) {
			slowest = n
		}
	}
	count := float64(len(r.nodes))
	whole := r.ended.cpu - r.begun.cpu
	say(r.out, "evidence from %.0f to %.0f ms after the nodes were let go", milliseconds(first.Sub(r.released)), milliseconds(last.Sub(r.released)))
	say(r.out, "first evidence to last GO %.0f ms; slowest node %s: %.0f ms from its evidence to its GO",
		milliseconds(lastGo.Sub(first)), slowest.Name, milliseconds(slowest.gone.Sub(slowest.posted)))
	say(r.out, "enclaved: %.2f s CPU for the whole job, %.3f ms per node; a bare P-384 verification takes %.3f ms", whole.Seconds(),
		milliseconds(whole)/count, milliseconds(bare))
	say(r.out, "bytes: nodes sent %d and got %d; %d per roster answer, %d nodes fetched all leaves, %d each", t.out, t.in,
		t.answers/int64(len(r.nodes)), t.fetched, t.leaves/int64(max(1, t.fetched)))
	if r.Twice {
		say(r.out, "%s posted twice: one answer for both, other evidence was refused with E125", r.nodes[0].Name)
	}
	_, err = fmt.Fprintf(r.out, "scale: n=%d last_evidence_to_last_go_ms=%.0f cpu_s=%.2f verify_ratio=%.2f rss_mb=%.0f roster_bytes=%d\n",
		len(r.nodes), milliseconds(lastGo.Sub(r.last.at)), (r.ended.cpu - r.last.cpu).Seconds(), float64(whole)/float64(bare)/count,
		float64(peak)/(1<<20), t.answers+t.leaves)
	return err
}

// reportLost prints what became of a start with a lost node: nobody may have come to GO.
func (r *run) reportLost(refusals []*enclave.Refusal) error {
	codes := map[enclave.Code]int{}
	refused := 0
	for _, x := range refusals {
		if x != nil {
			codes[x.Code]++
			refused++
		}
	}
	if refused != r.posters() {
		return errors.New("a node was let in though another one is lost")
	}
	var list []string
	for _, c := range slices.Sorted(maps.Keys(codes)) {
		list = append(list, fmt.Sprintf("%s:%d", c, codes[c]))
	}
	deadline := r.firstNonce.Add(time.Duration(r.site.barrier()) * time.Second)
	peak, err := r.enclaved.peak()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(r.out, "scale: n=%d lost=%s refused=%d codes=%s deadline_to_last_refusal_ms=%.0f cpu_s=%.2f rss_mb=%.0f\n",
		len(r.nodes), r.nodes[len(r.nodes)-1].Name, refused, strings.Join(list, ","), milliseconds(r.ended.at.Sub(deadline)),
		(r.ended.cpu - r.begun.cpu).Seconds(), float64(peak)/(1<<20))
	return err
}
