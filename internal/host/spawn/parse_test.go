package spawn

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestParseCgroups(t *testing.T) {
	const v1 = `32 25 0:29 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
33 25 0:30 /lab/n1 /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
34 25 0:31 / /sys/fs/cgroup/systemd rw shared:9 - cgroup cgroup rw,xattr,name=systemd
35 25 0:32 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup rw,nsdelegate
36 25 0:33 / /tmp rw - tmpfs tmpfs rw
`
	got, err := parseCgroups(strings.NewReader(v1))
	require.NoError(t, err)
	assert.Equal(t, []string{"/sys/fs/cgroup/freezer", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"}, got)
	_, err = parseCgroups(strings.NewReader("not a mountinfo\n"))
	require.Error(t, err)
}

func FuzzParseIdentity(f *testing.F) {
	f.Add("pid 4711 start 123456 exe 8:99\n")
	f.Add("pid 1 start 1 exe 1:1\n")
	f.Add("pid -1 start x exe 1:1\n")
	f.Fuzz(func(t *testing.T, s string) {
		i, err := parseIdentity(s)
		if err == nil {
			assert.Equal(t, s, i.String())
			assert.Greater(t, i.pid, 1, "nobody signals init, or all processes")
		}
	})
}

// A keeper that has no descriptor left for a timer waits all the same: a want that may pass ends no job.
func TestWaitWithoutADescriptorLeft(t *testing.T) {
	time.Sleep(time.Nanosecond) // the runtime takes its own descriptors at the first timer
	var was unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &was))
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: was.Max}))
	defer func() { require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &was)) }()
	_, control := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, 0)
	require.ErrorIs(t, control, unix.EMFILE)
	until := Self{}.Now() + 300*time.Millisecond
	require.NoError(t, Self{}.Wait(t.Context(), until))
	require.GreaterOrEqual(t, Self{}.Now(), until)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, Self{}.Wait(ctx, until+time.Hour), context.Canceled)
}
