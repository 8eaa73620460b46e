package door

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/site/settle"
	"github.com/slurm-enclave/slurm-enclave/internal/slurm"
)

// terminal is a Slurm with one job, and what was shown to those who wait for it.
type terminal struct {
	job   slurm.Job
	away  error
	shown string
}

func (f *terminal) Job(context.Context, uint32) (slurm.Job, error) { return f.job, f.away }

func (f *terminal) Notify(_ context.Context, id uint32, text string) error {
	f.shown += fmt.Sprintf("%d: %s\n", id, text)
	return f.away
}

func TestTurnAway(t *testing.T) {
	log := logrus.New()
	log.SetOutput(io.Discard)
	refusal := enclave.Refuse("E102", enclave.FaultRequest, "account \"x\" has no tenant")
	for name, c := range map[string]struct {
		slurm  *terminal
		status int
		shown  string
	}{
		"srun is told why and ends":                      {&terminal{}, exitBroken, "7: enclave: E102 account \"x\" has no tenant\n"},
		"a batch job fails at the gate, not round it":    {&terminal{job: slurm.Job{Batch: true}}, exitFine, ""},
		"a job that Slurm does not tell fails there too": {&terminal{away: errors.New("slurmctld is busy")}, exitFine, ""},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.status, turnAway(t.Context(), log.WithField("job", "7.0"), c.slurm, 7, refusal))
			assert.Equal(t, c.shown, c.slurm.shown)
		})
	}
}

// An enclaved that takes the call and never answers is as good as one that is away.
func TestAStartIsSettledWithoutAnEnclavedThatStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := logrus.New()
		log.SetOutput(io.Discard)
		still := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		asked := false
		status := over(t.Context(), log.WithField("job", "7.0"), still, func(ctx context.Context) (settle.Outcome, error) {
			asked = true
			return settle.Outcome{Requeue: true}, ctx.Err()
		})
		assert.True(t, asked)
		assert.Equal(t, exitFine, status)
	})
}
