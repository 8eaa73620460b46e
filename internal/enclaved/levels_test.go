package enclaved

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/verifier/server"
)

// printed maps a command line to what the program prints.
type printed map[string]string

func (p printed) Run(_ context.Context, name string, args ...string) ([]byte, error) {
	out, ok := p[strings.Join(append([]string{name}, args...), " ")]
	if !ok {
		return nil, errors.New("exit status 2")
	}
	return []byte(out), nil
}

func TestLevels(t *testing.T) {
	t.Parallel()
	const ask = "sacctmgr -n -P show user where name="
	l := levels{printed{
		"getent passwd 1": "root2:x:1:1::/:/bin/sh\n", ask + "root2 withcoord format=User,AdminLevel,Coordinators": "root2|Administrator|\n",
		"getent passwd 2": "olga:x:2:2::/:/bin/sh\n", ask + "olga withcoord format=User,AdminLevel,Coordinators": "olga|Operator|chem\n",
		"getent passwd 3": "alice:x:3:3::/:/bin/sh\n", ask + "alice withcoord format=User,AdminLevel,Coordinators": "alice|None|digimed,astro\n",
		"getent passwd 4": "away:x:4:4::/:/bin/sh\n",
		"getent passwd 5": "a,root2:x:5:5::/:/bin/sh\n", ask + "a,root2 withcoord format=User,AdminLevel,Coordinators": "root2|Administrator|\n",
		"getent passwd 6": "two:x:6:6::/:/bin/sh\n", ask + "two withcoord format=User,AdminLevel,Coordinators": "two|None|\nroot2|Administrator|\n",
	}}
	for uid, want := range map[uint32]server.Level{1: server.Administrator, 2: server.Operator, 3: server.User, 6: server.User} {
		got, accounts, err := l.Rank(t.Context(), uid)
		require.NoError(t, err)
		assert.Equal(t, want, got, "uid %d", uid)
		assert.Equal(t, map[uint32][]string{2: {"chem"}, 3: {"digimed", "astro"}}[uid], accounts, "uid %d", uid)
	}
	for _, uid := range []uint32{4, 5, 9} {
		got, accounts, err := l.Rank(t.Context(), uid)
		require.Error(t, err, "uid %d", uid)
		assert.Equal(t, server.User, got)
		assert.Empty(t, accounts)
	}
}
