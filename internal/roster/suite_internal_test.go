package roster

import (
	"crypto/ecdh"
	"crypto/hpke"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// vector is one of draft-ietf-hpke-pq, as Go's crypto/hpke carries them.
type vector struct {
	KEM         uint16 `json:"kem_id"`
	KDF         uint16 `json:"kdf_id"`
	AEAD        uint16 `json:"aead_id"`
	Info        string `json:"info"`
	Private     string `json:"skRm"`
	Public      string `json:"pkRm"`
	Enc         string `json:"enc"`
	Encryptions []struct {
		AAD        string `json:"aad"`
		Ciphertext string `json:"ct"`
		Plaintext  string `json:"pt"`
	} `json:"encryptions"`
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return b
}

// TestTheSuiteIsMLKEM768X25519: what seals seeds is the hybrid of the draft, and nothing that only has
// its name.
func TestTheSuiteIsMLKEM768X25519(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("testdata/hpke-mlkem768x25519.json")
	require.NoError(t, err)
	var v vector
	require.NoError(t, json.Unmarshal(b, &v))
	kem, kdf, aead := suite()
	assert.Equal(t, []uint16{0x647a, 0x0001, 0x0003}, []uint16{kem.ID(), kdf.ID(), aead.ID()}, "MLKEM768X25519, HKDF-SHA256, ChaCha20Poly1305")
	assert.Equal(t, []uint16{v.KEM, v.KDF, v.AEAD}, []uint16{kem.ID(), kdf.ID(), aead.ID()})
	key, err := kem.NewPrivateKey(unhex(t, v.Private))
	require.NoError(t, err)
	assert.Equal(t, unhex(t, v.Public), key.PublicKey().Bytes())
	enc := unhex(t, v.Enc)
	require.Len(t, enc, encapsulatedSize)
	t.Run("the draft's messages open", func(t *testing.T) {
		t.Parallel()
		r, err := hpke.NewRecipient(enc, key, kdf, aead, unhex(t, v.Info))
		require.NoError(t, err)
		for _, m := range v.Encryptions {
			plain, err := r.Open(unhex(t, m.AAD), unhex(t, m.Ciphertext))
			require.NoError(t, err)
			assert.Equal(t, unhex(t, m.Plaintext), plain)
		}
	})
	// Both halves of the hybrid go into the secret.
	for name, at := range map[string]int{"ML-KEM's half": 7, "X25519's half": encapsulatedSize - 7} {
		t.Run("with another ciphertext in "+name+" they do not", func(t *testing.T) {
			t.Parallel()
			forged := append([]byte(nil), enc...)
			forged[at] ^= 1
			r, err := hpke.NewRecipient(forged, key, kdf, aead, unhex(t, v.Info))
			if err == nil {
				_, err = r.Open(unhex(t, v.Encryptions[0].AAD), unhex(t, v.Encryptions[0].Ciphertext))
			}
			require.Error(t, err)
		})
	}
	t.Run("a seed is sealed as one message of the suite", func(t *testing.T) {
		t.Parallel()
		own, err := kem.GenerateKey()
		require.NoError(t, err)
		seed, header := NewSeed(), enclave.Digest{9}
		sealed, err := SealSeed(seed, header, "n1", own.PublicKey().Bytes())
		require.NoError(t, err)
		require.Len(t, sealed, encapsulatedSize+seedSize+16)
		r, err := hpke.NewRecipient(sealed[:encapsulatedSize], own, kdf, aead, seedInfo("n1"))
		require.NoError(t, err)
		plain, err := r.Open(header[:], sealed[encapsulatedSize:])
		require.NoError(t, err)
		assert.Equal(t, seed.Bytes(), plain)
	})
	t.Run("a key of X25519 alone opens nothing", func(t *testing.T) {
		t.Parallel()
		_, err := OpenSeed(classical(t), enclave.Digest{}, "n1", make([]byte, encapsulatedSize+seedSize+16))
		require.ErrorContains(t, err, "not sealed with MLKEM768X25519")
	})
	t.Run("an envelope is closed once", func(t *testing.T) {
		t.Parallel()
		own, err := kem.GenerateKey()
		require.NoError(t, err)
		e, err := NewEnvelope("n1", own.PublicKey().Bytes())
		require.NoError(t, err)
		_, err = e.Close(enclave.Secret{}, enclave.Digest{1})
		require.Error(t, err, "no seed")
		sealed, err := e.Close(NewSeed(), enclave.Digest{1})
		require.NoError(t, err)
		_, err = OpenSeed(own, enclave.Digest{1}, "n1", sealed)
		require.NoError(t, err)
		_, err = e.Close(NewSeed(), enclave.Digest{1})
		require.ErrorContains(t, err, "closed already")
	})
}

func classical(t *testing.T) hpke.PrivateKey {
	t.Helper()
	key, err := hpke.DHKEM(ecdh.X25519()).GenerateKey()
	require.NoError(t, err)
	return key
}
