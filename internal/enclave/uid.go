package enclave

import (
	"fmt"
	"math"
)

// UIDRange is a run of user ids: the job's user (Count 1) or a line of /etc/subuid.
type UIDRange struct {
	Start uint32 `json:"start"`
	Count uint32 `json:"count"`
}

// Last is the greatest id of the range. An empty range has none, so check first.
func (r UIDRange) Last() uint32 { return r.Start + r.Count - 1 }

// Check refuses an empty range, one that holds root, and one that runs past the last user id
// (4294967295 means "no user" to the kernel).
func (r UIDRange) Check() error {
	switch {
	case r.Count == 0:
		return fmt.Errorf("uid range from %d: empty", r.Start)
	case r.Start == 0:
		return fmt.Errorf("uid range of %d ids: holds root", r.Count)
	case uint64(r.Start)+uint64(r.Count) > math.MaxUint32:
		return fmt.Errorf("uid range %d+%d: beyond the last user id", r.Start, r.Count)
	}
	return nil
}

// String is "2001" or "100000-165535", as nft spells it.
func (r UIDRange) String() string {
	if r.Count == 1 {
		return fmt.Sprint(r.Start)
	}
	return fmt.Sprintf("%d-%d", r.Start, r.Last())
}
