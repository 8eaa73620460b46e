package enclave_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

func TestFID(t *testing.T) {
	for text, want := range map[string]enclave.FID{
		"[0x200000007:0x1:0x0]":  enclave.RootFID(),
		"0x200000401:0x2a:0x0":   {Sequence: 0x200000401, Object: 0x2a},
		"[0x1:0xffffffff:0x7]":   {Sequence: 1, Object: 0xffffffff, Version: 7},
		"":                       {},
		"[8589935617:42:0]":      {Sequence: 0x200000401, Object: 0x2a},
		"[0x200000401:0x2a:0x0]": {Sequence: 0x200000401, Object: 0x2a},
	} {
		var f enclave.FID
		require.NoError(t, f.UnmarshalText([]byte(text)), text)
		assert.Equal(t, want, f)
		b, err := json.Marshal(f)
		require.NoError(t, err)
		var again enclave.FID
		require.NoError(t, json.Unmarshal(b, &again))
		assert.Equal(t, f, again)
	}
	for _, bad := range []string{"[0x1:0x2]", "[1:2:3:4]", "[x:1:1]", "[0x10000000000000000:0:0]", "[1:0x100000000:0]", "[0:0:0]", "[]", "-1:0:0"} {
		var f enclave.FID
		require.Error(t, f.UnmarshalText([]byte(bad)), bad)
	}
}

func FuzzFID(f *testing.F) {
	f.Add("[0x200000401:0x1:0x0]")
	f.Fuzz(func(t *testing.T, text string) {
		var fid, again enclave.FID
		if fid.UnmarshalText([]byte(text)) != nil {
			return
		}
		b, err := fid.MarshalText()
		require.NoError(t, err)
		require.NoError(t, again.UnmarshalText(b))
		require.Equal(t, fid, again)
	})
}
