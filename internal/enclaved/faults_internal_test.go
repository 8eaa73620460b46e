package enclaved

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAFaultOfEveryCallIsLoggedSomeTimes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, written := test.NewNullLogger()
		f := newFaults(log)
		for range 1000 {
			f.say("GET /v1/x", errors.New("the disk is on fire"))
		}
		require.Len(t, written.AllEntries(), 10)
		assert.Equal(t, logrus.ErrorLevel, written.LastEntry().Level)
		assert.Equal(t, "GET /v1/x", written.LastEntry().Data["call"])
		<-time.After(6 * time.Second)
		f.say("GET /v1/x", errors.New("the disk is on fire"))
		require.Len(t, written.AllEntries(), 11)
		assert.Equal(t, 990, written.LastEntry().Data["skipped"])
	})
}
