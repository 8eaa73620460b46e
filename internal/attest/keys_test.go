package attest_test

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hpke"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/attest"
	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

func TestKeysFit(t *testing.T) {
	k, err := attest.NewKeys()
	require.NoError(t, err)
	p := k.Public()

	wg, err := ecdh.X25519().NewPrivateKey(k.WireGuard().Bytes())
	require.NoError(t, err)
	assert.Equal(t, wg.PublicKey().Bytes(), p.WireGuard[:])
	raw := k.WireGuard().Bytes()
	assert.Zero(t, raw[0]&7, "clamped")
	assert.Equal(t, byte(64), raw[31]&192, "clamped")

	sig, err := k.Sign([]byte("message"))
	require.NoError(t, err)
	assert.True(t, ed25519.Verify(p.Ed25519[:], []byte("message"), sig))

	require.Len(t, p.HPKE, claim.HPKESize)
	pub, err := hpke.MLKEM768X25519().NewPublicKey(p.HPKE)
	require.NoError(t, err)
	sealed, err := hpke.Seal(pub, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte("info"), []byte("seed"))
	require.NoError(t, err)
	opened, err := hpke.Open(k.HPKE(), hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte("info"), sealed)
	require.NoError(t, err)
	assert.Equal(t, "seed", string(opened))
}

func TestKeysPassToTheKeeper(t *testing.T) {
	k, err := attest.NewKeys()
	require.NoError(t, err)
	s, err := k.Secret()
	require.NoError(t, err)
	again, err := attest.ParseKeys(s)
	require.NoError(t, err)
	assert.Equal(t, k.Public(), again.Public())
	_, err = attest.ParseKeys(enclave.NewSecret(make([]byte, 95)))
	require.Error(t, err)
}

func TestTwoJobsShareNoKey(t *testing.T) {
	a, err := attest.NewKeys()
	require.NoError(t, err)
	b, err := attest.NewKeys()
	require.NoError(t, err)
	assert.NotEqual(t, a.Public().WireGuard, b.Public().WireGuard)
	assert.NotEqual(t, a.Public().Ed25519, b.Public().Ed25519)
	assert.NotEqual(t, a.Public().HPKE, b.Public().HPKE)
}

func TestKeysDoNotPrint(t *testing.T) {
	k, err := attest.NewKeys()
	require.NoError(t, err)
	s, err := k.Secret()
	require.NoError(t, err)
	holder := struct{ k attest.Keys }{k}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, out := range []string{fmt.Sprintf(verb, k), fmt.Sprintf(verb, &k), fmt.Sprintf(verb, holder)} {
			for i := 0; i < 96; i += 32 {
				part := s.Bytes()[i : i+32]
				assert.NotContains(t, out, hex.EncodeToString(part[:4]))
				assert.NotContains(t, out, base64.StdEncoding.EncodeToString(part)[:8])
				assert.NotContains(t, out, strings.Trim(fmt.Sprintf("%d", part[:4]), "[]"))
			}
		}
	}
	_, err = json.Marshal(k)
	require.Error(t, err)
}

func TestWipedKeysAreGone(t *testing.T) {
	k, err := attest.NewKeys()
	require.NoError(t, err)
	copied := k
	k.Wipe()
	assert.Empty(t, copied.WireGuard().Bytes())
	assert.Nil(t, copied.HPKE())
	_, err = copied.Sign(nil)
	require.Error(t, err)
	_, err = copied.Secret()
	require.Error(t, err)

	var zero attest.Keys
	zero.Wipe()
	assert.Equal(t, attest.Public{}, zero.Public())
	_, err = zero.Sign(nil)
	require.Error(t, err)
}
