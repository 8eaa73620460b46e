package closed_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/closed"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// machine is a node as lists of lines; a name in broken cannot be listed.
type machine struct {
	lines  map[string][]string
	broken map[string]error
	record []byte
	boot   string
	clean  error
}

func (m *machine) source(name string) closed.Source {
	return func(context.Context) ([]string, error) { return m.lines[name], m.broken[name] }
}

func (m *machine) Read() ([]byte, error) {
	if m.record == nil {
		return nil, fs.ErrNotExist
	}
	return m.record, nil
}

func (m *machine) Write(b []byte) error { m.record = b; return nil }

func (m *machine) node() closed.Node {
	return closed.Node{
		Store: m, Boot: func() (string, error) { return m.boot, nil },
		Clean: func(context.Context) error { return m.clean },
		Sources: closed.Sources{
			Links: m.source("links"), Rules: m.source("rules"), Routes: m.source("routes"), Tables: m.source("tables"), Sockets: m.source("sockets"), Mounts: m.source("mounts"),
			Processes: m.source("processes"), Files: m.source("files"), IPC: m.source("ipc"),
		},
	}
}

func newMachine() *machine {
	return &machine{boot: "b1", broken: map[string]error{}, lines: map[string][]string{
		"tables": {"inet enclave_closed"}, "files": {"gate/", "old"}, "processes": {"uid 2001 \"cron\""},
	}}
}

func checks(c []enclave.Check) string {
	var b strings.Builder
	for _, one := range c {
		if one.Result != enclave.CheckPass {
			b.WriteString(one.Name + " " + string(one.Result) + " " + one.Reason + "\n")
		}
	}
	return b.String()
}

func TestNode(t *testing.T) {
	cases := map[string]struct {
		change func(*machine)
		want   string
	}{
		"nothing changed":                  {func(*machine) {}, ""},
		"a link is left":                   {func(m *machine) { m.lines["links"] = []string{"enc4711"} }, "closed.links fail + enc4711\n"},
		"a rule is left":                   {func(m *machine) { m.lines["rules"] = []string{"1: x"} }, "closed.rules fail + 1: x\n"},
		"a route is left":                  {func(m *machine) { m.lines["routes"] = []string{"10.0.0.1"} }, "closed.routes fail + 10.0.0.1\n"},
		"a socket is left":                 {func(m *machine) { m.lines["sockets"] = []string{"tcp 10.0.0.1:7 uid 2001"} }, "closed.sockets fail + tcp 10.0.0.1:7 uid 2001\n"},
		"a mount is there twice":           {func(m *machine) { m.lines["mounts"] = []string{"/tmp", "/tmp"} }, "closed.mounts fail + /tmp; + /tmp\n"},
		"the closed fence has gone":        {func(m *machine) { m.lines["tables"] = nil }, "closed.tables fail - inet enclave_closed\n"},
		"a process is left":                {func(m *machine) { m.lines["processes"] = []string{"uid 2001 \"cron\"", "uid 2001 \"cron\""} }, "closed.processes fail + uid 2001 \"cron\"\n"},
		"a process and a file have gone":   {func(m *machine) { m.lines["processes"], m.lines["files"] = nil, nil }, ""},
		"ipc is left":                      {func(m *machine) { m.lines["ipc"] = []string{"shm 7 uid 2001"} }, "closed.ipc fail + shm 7 uid 2001\n"},
		"what cannot be listed is unknown": {func(m *machine) { m.broken["rules"] = errors.New("netlink") }, "closed.rules unknown rules: netlink\n"},
		"another boot is unknown":          {func(m *machine) { m.boot = "b2" }, "closed.boot unknown the closed state was recorded in another boot\n"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			m := newMachine()
			require.NoError(t, m.node().Close(t.Context()))
			c.change(m)
			got := m.node().Check(t.Context())
			assert.Equal(t, c.want, checks(got))
			refusal := closed.Refuse(got)
			if c.want == "" {
				assert.Nil(t, refusal)
				return
			}
			require.NotNil(t, refusal)
			assert.Equal(t, closed.CodeDiffers, refusal.Code)
			assert.Equal(t, enclave.FaultNode, refusal.Fault)
		})
	}
	t.Run("without a record nothing passes", func(t *testing.T) {
		m := newMachine()
		require.NotNil(t, closed.Refuse(m.node().Check(t.Context())))
		m.record = []byte("{}")
		require.NotNil(t, closed.Refuse(m.node().Check(t.Context())))
		require.NotNil(t, closed.Refuse(nil), "no check at all is no pass")
	})
	t.Run("a node that could not be closed is not recorded", func(t *testing.T) {
		m := newMachine()
		m.clean = errors.New("table stays")
		require.ErrorContains(t, m.node().Close(t.Context()), "table stays")
		assert.Nil(t, m.record)
	})
	t.Run("a kind that nobody lists or that fails is not recorded", func(t *testing.T) {
		m := newMachine()
		n := m.node()
		n.Sources.IPC = nil
		require.ErrorContains(t, n.Close(t.Context()), "ipc: nobody lists them")
		m.broken["links"] = errors.New("netlink")
		require.Error(t, m.node().Close(t.Context()))
		assert.Nil(t, m.record)
	})
	t.Run("a long difference is cut in the drain reason", func(t *testing.T) {
		m := newMachine()
		require.NoError(t, m.node().Close(t.Context()))
		m.lines["files"] = strings.Split(strings.Repeat("f ", 5000), " ")
		assert.Less(t, len(closed.Refuse(m.node().Check(t.Context())).Reason), 500)
	})
}

func FuzzParse(f *testing.F) {
	m := newMachine()
	if err := m.node().Close(context.Background()); err != nil {
		f.Fatal(err)
	}
	f.Add(m.record)
	f.Add([]byte(`{"version":"slurm-enclave-closed/2","boot":"x","links":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := closed.Parse(b)
		if err != nil {
			require.Zero(t, s)
			return
		}
		again, err := json.Marshal(s)
		require.NoError(t, err)
		_, err = closed.Parse(again)
		require.NoError(t, err)
	})
}
