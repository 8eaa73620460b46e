package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// labProgram is enclave-lab: up or down, with an OpenVPN that runs at some hosts.
type labProgram struct {
	up      bool
	running map[string]bool
	absent  bool // openvpn is not installed
	nodes   string
	log     []string
}

func (l *labProgram) Run(_ context.Context, input string, argv ...string) (string, error) {
	l.log = append(l.log, argv[0])
	switch argv[0] {
	case "status":
		if !l.up {
			return "", errors.New("exit status 7")
		}
		return "", nil
	case "up", "down":
		l.up = argv[0] == "up"
		return "", nil
	case "exec":
		return l.exec(argv[1], input, argv[5:])
	}
	return "", fmt.Errorf("no command %s", argv[0])
}

func (l *labProgram) exec(host, input string, argv []string) (string, error) {
	line := strings.Join(argv, " ")
	switch {
	case line == "true" && !strings.Contains(l.nodes, host):
		return "", errors.New("find host")
	case argv[0] == "getent":
		return "10.93.2." + host[1:] + "    STREAM " + host + "\n", nil
	case strings.Contains(line, "command -v openvpn") && l.absent:
		return "", errors.New("exit status 1")
	case strings.Contains(line, "exec openvpn"):
		l.running[host] = strings.Contains(input, "AES-128-CBC")
	case strings.Contains(line, "kill"):
		delete(l.running, host)
	}
	return "", nil
}

func TestLab(t *testing.T) {
	t.Parallel()
	const nodes = "c1 c2 n1 n2"
	t.Run("a lab that is down is brought up, and taken down with its OpenVPN", func(t *testing.T) {
		t.Parallel()
		p := &labProgram{running: map[string]bool{}, nodes: nodes}
		b := &Bench{}
		l := &Lab{Program: p, Says: func(string) {}}
		require.NoError(t, l.Up(t.Context(), b))
		assert.True(t, p.up)
		assert.Equal(t, "/home/alice", b.Directory)
		assert.True(t, b.Crowded)
		require.NoError(t, l.Baseline(t.Context(), b))
		assert.Equal(t, map[string]bool{"c1": true, "c2": true}, p.running)
		assert.Equal(t, "10.94.0.0/24", b.Tunnel.String())
		require.NoError(t, l.Down(t.Context()))
		assert.Empty(t, p.running)
		assert.False(t, p.up)
	})
	t.Run("a lab that was up stays up", func(t *testing.T) {
		t.Parallel()
		p := &labProgram{up: true, running: map[string]bool{}, nodes: nodes}
		l := &Lab{Program: p}
		require.NoError(t, l.Up(t.Context(), &Bench{}))
		require.NoError(t, l.Baseline(t.Context(), &Bench{}))
		require.NoError(t, l.Down(t.Context()))
		assert.True(t, p.up)
		assert.Empty(t, p.running)
		assert.NotContains(t, p.log, "down")
	})
	t.Run("a lab of too few nodes is refused with what to do", func(t *testing.T) {
		t.Parallel()
		l := &Lab{Program: &labProgram{up: true, nodes: "c1 n1 n2"}}
		require.ErrorContains(t, l.Up(t.Context(), &Bench{}), "find c2: the lab that is up has too few nodes. enclave-lab down")
	})
	t.Run("without OpenVPN its package is named", func(t *testing.T) {
		t.Parallel()
		p := &labProgram{up: true, absent: true, running: map[string]bool{}, nodes: nodes}
		l := &Lab{Program: p}
		b := &Bench{}
		require.NoError(t, l.Up(t.Context(), b))
		require.NoError(t, l.Baseline(t.Context(), b))
		assert.False(t, b.Tunnel.IsValid(), "there is no such row")
		assert.Equal(t, []string{"no row openvpn: it is not on c1: package openvpn"}, b.notes)
	})
}
