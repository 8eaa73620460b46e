package api_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

func announcement(t testing.TB) (api.Announcement, ed25519.PrivateKey) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	a := api.Announcement{
		Job: enclave.JobKey{Cluster: "c", Job: 7, Restart: 1}, Node: "n1", Epoch: 1, Purpose: claim.PurposeJob,
		Nonce: enclave.Nonce{1}, Keys: enclave.NodeKeys{WireGuard: enclave.PublicKey{2}, Ed25519: enclave.PublicKey(pub), HPKE: []byte{3}},
		Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Endpoint: netip.MustParseAddrPort("10.0.0.1:51820"),
		Evidence: enclave.Evidence{Report: []byte{4}, Certificates: []byte{5}, Provider: "sev_guest"},
	}
	require.NoError(t, a.Sign(func(m []byte) ([]byte, error) { return ed25519.Sign(key, m), nil }))
	return a, key
}

func TestAnnouncementIsSignedWhole(t *testing.T) {
	t.Parallel()
	good, _ := announcement(t)
	require.NoError(t, good.CheckSignature())
	for name, change := range map[string]func(*api.Announcement){
		"cluster": func(a *api.Announcement) { a.Job.Cluster = "d" }, "job": func(a *api.Announcement) { a.Job.Job++ },
		"restart": func(a *api.Announcement) { a.Job.Restart++ }, "node": func(a *api.Announcement) { a.Node = "n2" },
		"epoch": func(a *api.Announcement) { a.Epoch++ }, "purpose": func(a *api.Announcement) { a.Purpose++ },
		"nonce": func(a *api.Announcement) { a.Nonce[3]++ }, "tunnel key": func(a *api.Announcement) { a.Keys.WireGuard[3]++ },
		"signature key": func(a *api.Announcement) { a.Keys.Ed25519[3]++ }, "sealing key": func(a *api.Announcement) { a.Keys.HPKE = nil },
		"addresses": func(a *api.Announcement) { a.Addresses = append(a.Addresses, a.Addresses[0]) },
		"endpoint":  func(a *api.Announcement) { a.Endpoint = netip.MustParseAddrPort("10.0.0.1:51821") },
		"report":    func(a *api.Announcement) { a.Evidence.Report = []byte{9} },
		"certs":     func(a *api.Announcement) { a.Evidence.Certificates = nil },
		"provider":  func(a *api.Announcement) { a.Evidence.Provider = "x" },
	} {
		t.Run("a changed "+name+" is refused", func(t *testing.T) {
			t.Parallel()
			a := good
			change(&a)
			assert.Error(t, a.CheckSignature())
		})
	}
	t.Run("it survives the way to the verifier", func(t *testing.T) {
		t.Parallel()
		b, err := good.MarshalBinary()
		require.NoError(t, err)
		var back api.Announcement
		require.NoError(t, back.UnmarshalBinary(b))
		assert.Equal(t, good, back)
		assert.NoError(t, back.CheckSignature())
	})
}

func TestBodiesOfAnnouncements(t *testing.T) {
	t.Parallel()
	good, _ := announcement(t)
	body, err := good.MarshalBinary()
	require.NoError(t, err)
	for n := range body {
		var a api.Announcement
		require.Error(t, a.UnmarshalBinary(body[:n]), "cut off after %d bytes", n)
	}
	other := good
	other.Addresses = make([]netip.Addr, 65)
	_, err = other.MarshalBinary()
	require.Error(t, err, "more addresses than a node has")
	text, err := json.Marshal(good)
	require.NoError(t, err)
	for name, b := range map[string][]byte{
		"a byte more": append(bytes.Clone(body), 0), "JSON": text,
		"an address with a zone of its own spelling": bytes.Replace(body, []byte("10.0.0.1"), []byte("010.0.01"), 1),
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			t.Parallel()
			var a api.Announcement
			require.Error(t, a.UnmarshalBinary(b))
			assert.Equal(t, api.Announcement{}, a, "nothing of it is taken")
		})
	}
}

func TestBodiesAreBounded(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int64{"of a length that was said": 5, "of any length": -1} {
		t.Run("a body "+name, func(t *testing.T) {
			t.Parallel()
			b, err := api.ReadBody(strings.NewReader("12345"), size, 5)
			require.NoError(t, err)
			assert.Equal(t, "12345", string(b))
			_, err = api.ReadBody(strings.NewReader("12345"), size, 4)
			require.Error(t, err)
		})
	}
	_, err := api.ReadBody(strings.NewReader("123"), 5, 5)
	require.Error(t, err, "less than was said")
}

func TestDecodeIsStrict(t *testing.T) {
	t.Parallel()
	var v api.EnrolNonceRequest
	require.NoError(t, api.Decode(strings.NewReader(`{"node":"n1"}`+"\n"), 64, &v))
	for name, body := range map[string]string{
		"nothing": "", "an unknown field": `{"node":"n1","x":1}`, "two documents": `{"node":"n1"}{}`, "another type": `[]`,
		"garbage after": `{"node":"n1"} x`, "too long": `{"node":"` + strings.Repeat("n", 64) + `"}`, "half": `{"node":`,
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			t.Parallel()
			var w api.EnrolNonceRequest
			assert.Error(t, api.Decode(strings.NewReader(body), 64, &w))
		})
	}
}

func FuzzDecodeAnnouncement(f *testing.F) {
	a, _ := announcement(f)
	b, err := a.MarshalBinary()
	require.NoError(f, err)
	f.Add(b)
	f.Add(b[:40])
	f.Fuzz(func(t *testing.T, b []byte) {
		var a api.Announcement
		if a.UnmarshalBinary(b) != nil {
			return
		}
		again, err := a.MarshalBinary()
		require.NoError(t, err)
		assert.Equal(t, b, again, "there is one way to write it")
	})
}
