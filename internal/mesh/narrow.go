package mesh

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Narrow takes nodes out of a job's running mesh and gives the others new pre-shared keys, and
// reads both back. The routes stay: what is sent to a node that is gone still goes to the
// interface, and ends there.
func Narrow(ctx context.Context, k Kernel, job uint32, gone []enclave.PublicKey, stay []Peer) error {
	name := Name(job)
	if err := k.Peers.Narrow(ctx, name, gone, stay); err != nil {
		return fmt.Errorf("mesh: narrow %s: %w", name, err)
	}
	s, err := k.WireGuard.State(ctx, name)
	if err != nil {
		return fmt.Errorf("mesh: narrow %s: %w", name, err)
	}
	have := map[enclave.PublicKey]PeerState{}
	for _, p := range s.Peers {
		have[p.Key] = p
	}
	if i := slices.IndexFunc(gone, func(key enclave.PublicKey) bool { _, ok := have[key]; return ok }); i >= 0 {
		return enclave.Refuse(CodeReadBack, enclave.FaultNode, "WireGuard still holds peer %s", gone[i])
	}
	for _, p := range stay {
		if h, ok := have[p.Key]; !ok || !bytes.Equal(h.PSK.Bytes(), p.PSK.Bytes()) {
			return enclave.Refuse(CodeReadBack, enclave.FaultNode, "WireGuard does not hold the new key of %s", p.Node)
		}
	}
	return nil
}

// Cut deletes a job's interface and with it all its peers. What the job sends afterwards finds
// no tunnel and is stopped by the fence. The rest is Down's, in the epilog.
func Cut(ctx context.Context, k Kernel, job uint32) error {
	if err := k.Links.DeleteLink(ctx, Name(job)); err != nil {
		return fmt.Errorf("mesh: cut %s: %w", Name(job), err)
	}
	return nil
}
