package server

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// People cost programs on slurmctld's host: unmunge, getent, sacctmgr. Few run at a time, a call waits for
// its turn no longer than patience, and a user who is no operator has so many calls a second, whatever it asks.
const (
	programsAtOnce = 8
	patience       = 10 * time.Second
	userRate       = 5
	userBurst      = 50
)

// users limits people by their uid, once it is known.
type users struct {
	mu  sync.Mutex
	uid map[uint32]*rate.Limiter
}

func newUsers() *users { return &users{uid: map[uint32]*rate.Limiter{}} }

func (u *users) allow(uid uint32) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	l := u.uid[uid]
	if l == nil {
		if len(u.uid) >= maxSources { // munge vouches for every uid
			clear(u.uid)
		}
		l = rate.NewLimiter(userRate, userBurst)
		u.uid[uid] = l
	}
	return l.Allow()
}

func tooMany(why string) error { return enclave.Refuse("E131", enclave.FaultService, "%s", why) }

// inTurn runs what starts a program.
func (s *Server) inTurn(ctx context.Context, f func() error) error {
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case s.programs <- struct{}{}:
	case <-wait.Done():
		return tooMany("too many people ask at a time")
	}
	defer func() { <-s.programs }()
	return f()
}

// decode finds out who made a credential.
func (s *Server) decode(ctx context.Context, credential string) (uid uint32, payload string, err error) {
	err = s.inTurn(ctx, func() (bad error) {
		uid, payload, bad = s.Credentials.Decode(ctx, credential)
		return bad
	})
	return uid, payload, err
}

// rank asks Slurm what a user may do. A refusal is no answer of Slurm's: the user asks too often.
func (s *Server) rank(ctx context.Context, uid uint32) (level Level, accounts []string, err error) {
	if !s.users.allow(uid) {
		return User, nil, tooMany("too many calls of one user")
	}
	err = s.inTurn(ctx, func() (bad error) {
		level, accounts, bad = s.Levels.Rank(ctx, uid)
		return bad
	})
	return level, accounts, err
}
