package cli_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/cli"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/pki"
)

// registry is a verifier that keeps one wish.
type registry struct {
	nameless error // slurm.conf does not know this host

	pending  []api.PendingEnrol
	enrolled string
	key      enclave.Digest // of what was enrolled
	asked    api.EnrolRequest
	polls    int
	log      string
	proof    api.ProveRequest
	ground   []enclave.Check
}

func (r *registry) EnrolNonce(context.Context, string) (api.EnrolNonceAnswer, error) {
	return api.EnrolNonceAnswer{Cluster: "c1", Nonce: enclave.Nonce{1}, Seconds: 60}, nil
}

func (r *registry) EnrolRequest(_ context.Context, q api.EnrolRequest) (api.EnrolTicket, error) {
	r.asked = q
	return api.EnrolTicket{Fingerprint: enclave.Digest{2}}, nil
}

func (r *registry) EnrolStatus(context.Context, api.EnrolStatusRequest) (api.EnrolStatus, error) {
	if r.polls--; r.polls >= 0 {
		return api.EnrolStatus{State: api.EnrolPending}, nil
	}
	return api.EnrolStatus{State: api.EnrolEnrolled, Certificate: []byte("certificate")}, nil
}

func (r *registry) PendingEnrols(context.Context) ([]api.PendingEnrol, error) { return r.pending, nil }

func (r *registry) EnrolApprove(_ context.Context, q api.ApproveRequest) error {
	r.key = q.Fingerprint
	r.enrolled = strings.TrimSpace(q.Node + " " + q.ChipID + " " + q.ReportID)
	return nil
}

func (r *registry) Revoke(_ context.Context, q api.RevokeRequest) (api.RevokeAnswer, error) {
	r.log += "revoke " + q.Node + ": " + q.Reason + "\n"
	if q.Node != "n2" {
		return api.RevokeAnswer{}, enclave.Refuse("E138", enclave.FaultRequest, "not enrolled")
	}
	return api.RevokeAnswer{Ended: []enclave.JobKey{{Cluster: "c1", Job: 4711, Restart: 1}}}, nil
}

func (r *registry) Prove(_ context.Context, q api.ProveRequest) (api.ProveAnswer, error) {
	r.proof = q
	return api.ProveAnswer{Result: enclave.AttestationResult{Simulated: true}}, nil
}

func (r *registry) Return(_ context.Context, node string) error {
	r.log += "return " + node
	return nil
}

func runNode(t *testing.T, r *registry, in string, stored *tls.Certificate, args ...string) (string, error) {
	t.Helper()
	m := cli.Machine{
		Name: func(string) (string, error) { return "n1", r.nameless },
		Attest: func(_ context.Context, data [64]byte) (enclave.Evidence, error) {
			return enclave.Evidence{Report: data[:]}, nil
		},
		Enroller: func(string) (cli.Enroller, enclave.Digest, error) { return r, enclave.Digest{3}, nil },
		Prover: func(string) (cli.Prover, enclave.Digest, cli.Enrolled, error) {
			return r, enclave.Digest{3}, cli.Enrolled{Node: "n1", Key: enclave.PublicKey{4}}, nil
		},
		Sound:     func(context.Context, string) []enclave.Check { return r.ground },
		Registrar: func(string) (cli.Registrar, error) { return r, nil },
		Store:     func(c tls.Certificate) error { *stored = c; return nil },
		In:        strings.NewReader(in),
	}
	var out bytes.Buffer
	c := cli.NewRootCommand(&out, &out, "test", nil, cli.NewNodeCommand(m))
	c.SetArgs(append([]string{"node"}, args...))
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

func exitCode(err error) int {
	if e, ok := errors.AsType[*cli.ExitError](err); ok {
		return e.Code
	}
	return cli.ExitFailure
}

func wish(chip string) api.PendingEnrol {
	return api.PendingEnrol{
		Node: "n1", ChipID: strings.Repeat(chip, 64), Fingerprint: enclave.Digest{7}, From: "10.0.0.1\x1b[2J", At: time.Unix(0, 0),
		Result: enclave.AttestationResult{Simulated: true},
	}
}

// guest is the wish of another guest of the host whose chip is ab.
func guest(key byte) api.PendingEnrol {
	p := wish("ab")
	p.Fingerprint = enclave.Digest{key}
	return p
}

// masked is the wish of a node whose host masks CHIP_ID.
func masked(id string) api.PendingEnrol {
	p := wish("00")
	p.ReportID = strings.Repeat(id, 32)
	return p
}

func TestANodeStoresItsKeyOnceTheAdminSaidYes(t *testing.T) {
	t.Parallel()
	var stored tls.Certificate
	r := &registry{polls: 1}
	out, err := runNode(t, r, "", &stored, "enrol", "--request")
	require.NoError(t, err)
	assert.Contains(t, out, "waiting for the admin")
	assert.Contains(t, out, enclave.Digest{2}.String())
	pub, err := pki.ParseRequest("n1", r.asked.CSR)
	require.NoError(t, err)
	want, err := api.EnrolClaim("c1", enclave.Digest{3}, enclave.Digest{}, "n1", enclave.Nonce{1}, r.asked.EnrolKeys(enclave.PublicKey(pub))).ReportData()
	require.NoError(t, err)
	assert.Equal(t, want[:], r.asked.Evidence.Report, "the report vouches for the key in the request")
	assert.Equal(t, "certificate", string(stored.Certificate[0]))
	assert.NotNil(t, stored.PrivateKey)
}

func TestTheAdminSaysYesToOneChip(t *testing.T) {
	t.Parallel()
	chip, zeros, id := strings.Repeat("ab", 64), strings.Repeat("0", 128), strings.Repeat("ef", 32)
	for name, c := range map[string]struct {
		pending  []api.PendingEnrol
		in       string
		args     []string
		exit     int
		enrolled string
	}{
		"yes in words":                        {[]api.PendingEnrol{wish("ab")}, "yes\n", []string{"n1"}, 0, "n1 " + chip},
		"no in words":                         {[]api.PendingEnrol{wish("ab")}, "no\n", []string{"n1"}, cli.ExitDenied, ""},
		"yes without an end of line":          {[]api.PendingEnrol{wish("ab")}, "yes", []string{"n1"}, cli.ExitDenied, ""},
		"the chip":                            {[]api.PendingEnrol{wish("ab")}, "", []string{"n1", "--chip", strings.ToUpper(chip)}, 0, "n1 " + chip},
		"another chip":                        {[]api.PendingEnrol{wish("cd")}, "", []string{"n1", "--chip", chip}, cli.ExitMissing, ""},
		"nobody asked":                        {nil, "yes\n", []string{"n1"}, cli.ExitMissing, ""},
		"another node asked":                  {[]api.PendingEnrol{wish("ab")}, "yes\n", []string{"n2"}, cli.ExitMissing, ""},
		"two asked in one name":               {[]api.PendingEnrol{wish("ab"), wish("cd")}, "yes\n", []string{"n1"}, cli.ExitUnknown, ""},
		"two asked, one has it":               {[]api.PendingEnrol{wish("ab"), wish("cd")}, "", []string{"n1", "--chip", chip}, 0, "n1 " + chip},
		"a masked chip, yes in words":         {[]api.PendingEnrol{masked("ef")}, "yes\n", []string{"n1"}, 0, "n1 " + zeros + " " + id},
		"a masked chip, by its report id":     {[]api.PendingEnrol{masked("ef"), masked("aa")}, "", []string{"n1", "--report-id", id}, 0, "n1 " + zeros + " " + id},
		"a masked chip, by its zeros":         {[]api.PendingEnrol{masked("ef")}, "", []string{"n1", "--chip", zeros}, cli.ExitMissing, ""},
		"a masked chip, by another report id": {[]api.PendingEnrol{masked("aa")}, "", []string{"n1", "--report-id", id}, cli.ExitMissing, ""},
		"a report id where chips have names":  {[]api.PendingEnrol{wish("ab")}, "", []string{"n1", "--report-id", id}, cli.ExitMissing, ""},
		"two guests of one chip ask":          {[]api.PendingEnrol{wish("ab"), guest(9)}, "", []string{"n1", "--chip", chip}, cli.ExitUnknown, ""},
		"of two guests, by the key":           {[]api.PendingEnrol{guest(9), wish("ab")}, "", []string{"n1", "--key", strings.ToUpper(enclave.Digest{9}.String())}, 0, "n1 " + chip},
		"of two guests, by key and chip":      {[]api.PendingEnrol{guest(9), wish("ab")}, "", []string{"n1", "--chip", chip, "--key", enclave.Digest{9}.String()}, 0, "n1 " + chip},
		"the key, with another chip":          {[]api.PendingEnrol{wish("cd")}, "", []string{"n1", "--chip", chip, "--key", enclave.Digest{7}.String()}, cli.ExitMissing, ""},
		"another key":                         {[]api.PendingEnrol{wish("ab")}, "", []string{"n1", "--key", enclave.Digest{9}.String()}, cli.ExitMissing, ""},
		"a part of a key":                     {[]api.PendingEnrol{guest(9)}, "", []string{"n1", "--key", "09"}, cli.ExitMissing, ""},
		"two guests of one masked chip":       {[]api.PendingEnrol{masked("ef"), masked("ef")}, "", []string{"n1", "--report-id", id}, cli.ExitUnknown, ""},
		"a masked chip, by its key":           {[]api.PendingEnrol{masked("ef")}, "", []string{"n1", "--key", enclave.Digest{7}.String()}, 0, "n1 " + zeros + " " + id},
		"a key on the node":                   {nil, "", []string{"--request", "--key", "09"}, cli.ExitUsage, ""},
		"a name on the controller":            {nil, "", []string{"n1", "--node", "n1"}, cli.ExitUsage, ""},
		"both sides at once":                  {nil, "", []string{"n1", "--request"}, cli.ExitUsage, ""},
		"no side":                             {nil, "", nil, cli.ExitUsage, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &registry{pending: c.pending}
			out, err := runNode(t, r, c.in, nil, append([]string{"enrol"}, c.args...)...)
			if c.exit == 0 {
				require.NoError(t, err)
				assert.Contains(t, out, "SIMULATED")
			} else {
				assert.Equal(t, c.exit, exitCode(err))
			}
			assert.Equal(t, c.enrolled, r.enrolled)
			if slices.Contains(c.args, "--key") && c.exit == 0 {
				assert.True(t, strings.EqualFold(r.key.String(), c.args[len(c.args)-1]), "this key and no other")
			}
			assert.NotContains(t, out, "\x1b", "what a stranger sent can't move the cursor")
		})
	}
}

func TestANodeProvesItselfWhenItIsSound(t *testing.T) {
	t.Parallel()
	r := &registry{ground: []enclave.Check{{Name: "gate", Result: enclave.CheckPass}, {Name: "mounts", Result: enclave.CheckFail, Reason: "/x is mounted"}}}
	out, err := runNode(t, r, "", nil, "prove")
	assert.Equal(t, cli.ExitFailure, exitCode(err))
	assert.Contains(t, out, "/x is mounted")
	assert.Empty(t, r.proof.HPKE, "nothing was sent")
	r.ground = r.ground[:1]
	out, err = runNode(t, r, "", nil, "prove")
	require.NoError(t, err)
	assert.Contains(t, out, "proved, SIMULATED; on the controller: enclave node return n1")
	want, err := api.EnrolClaim("c1", enclave.Digest{3}, enclave.Digest{}, "n1", enclave.Nonce{1}, enclave.NodeKeys{Ed25519: enclave.PublicKey{4}, HPKE: r.proof.HPKE}).ReportData()
	require.NoError(t, err)
	assert.Equal(t, want[:], r.proof.Evidence.Report, "the report vouches for the enrolled key")
}

func TestRevokeAndReturn(t *testing.T) {
	t.Parallel()
	r := &registry{}
	_, err := runNode(t, r, "", nil, "revoke", "n1")
	assert.Equal(t, cli.ExitUsage, exitCode(err), "without a reason")
	_, err = runNode(t, r, "", nil, "revoke", "n1", "--reason", "gone")
	assert.Equal(t, cli.ExitDenied, exitCode(err))
	out, err := runNode(t, r, "", nil, "revoke", "n2", "--reason", "stolen disk")
	require.NoError(t, err)
	assert.Equal(t, "revoked n2, drained\nended job 4711.1\n", out)
	out, err = runNode(t, r, "", nil, "revoke", "n2", "--reason", "stolen disk", "--json")
	require.NoError(t, err)
	assert.JSONEq(t, `{"ended": [{"cluster": "c1", "job": 4711, "restart": 1}]}`, out)
	_, err = runNode(t, r, "", nil, "return", "n2")
	require.NoError(t, err)
	assert.Equal(t, "revoke n1: gone\nrevoke n2: stolen disk\nrevoke n2: stolen disk\nreturn n2", r.log)
}

func TestANodeThatSlurmConfDoesNotKnowSaysItsName(t *testing.T) {
	t.Parallel()
	var stored tls.Certificate
	r := &registry{nameless: errors.New("find blade7 in /etc/slurm/slurm.conf: it is neither a NodeHostname nor a NodeName there")}
	_, err := runNode(t, r, "", &stored, "enrol", "--request")
	assert.Equal(t, cli.ExitUnknown, exitCode(err))
	require.ErrorContains(t, err, "blade7")
	require.ErrorContains(t, err, "--node NAME")
	out, err := runNode(t, r, "", &stored, "enrol", "--request", "--node", "n1.hpc.example.org")
	require.NoError(t, err)
	assert.Contains(t, out, "enclave node enrol n1.hpc.example.org")
	_, err = pki.ParseRequest("n1.hpc.example.org", r.asked.CSR)
	require.NoError(t, err)
}
