package site_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/site"
	"github.com/slurm-enclave/slurm-enclave/internal/slurm"
)

func TestToken(t *testing.T) {
	t.Parallel()
	full := site.Accounting{
		Verdict: enclave.VerdictIncomplete, Nodes: 65536, Policy: strings.Repeat("a", 64), Code: "E220",
		Reason: strings.Repeat("<n2 \"it's\" `x` \\ \n\x1b ä>", 40), Restart: 4294967295, Weak: true,
	}
	got, err := full.Token()
	require.NoError(t, err)
	assert.LessOrEqual(t, len(got), site.MaxToken)
	for _, spelling := range []string{got, slurm.Stored(got)} {
		a, ok := site.ParseAdminComment("x " + spelling + " y")
		require.True(t, ok, spelling)
		assert.Equal(t, full.Restart, a.Restart)
		assert.Equal(t, full.Code, a.Code)
	}
	_, err = site.Accounting{}.Token()
	require.Error(t, err, "no verdict, no token")
	_, err = site.Accounting{Verdict: "refused", Code: enclave.Code(strings.Repeat("E", 300))}.Token()
	require.Error(t, err, "too long")
}

func TestMerge(t *testing.T) {
	t.Parallel()
	const old = `enclave={"v":"refused","n":1}`
	const now = `enclave={"v":"simulated","n":3}`
	for name, c := range map[string]struct{ text, want string }{
		"nothing":                            {"", now},
		"the text of others":                 {"JS1:H4s=", "JS1:H4s= " + now},
		"a text with a space at its end":     {"x ", "x " + now},
		"our token alone":                    {old, now},
		"what enclave.lua wrote at submit":   {`enclave={"v":"pending"}`, now},
		"our token between":                  {"a  " + old + "\tb\n", "a  " + now + "\tb\n"},
		"our token as sacctmgr left it":      {"a " + slurm.Stored(old) + " b", "a " + now + " b"},
		"two of ours":                        {old + " mid " + old, now + " mid "},
		"JSON of others":                     {`{"enclave":{"v":"refused"}} {"a":"}{"}`, `{"enclave":{"v":"refused"}} {"a":"}{"} ` + now},
		"a token glued to a word":            {"my" + old, "my" + old + " " + now},
		"a token with a tail":                {old + "x", old + "x " + now},
		"a token that never ends":            {`enclave={"v":"refused"`, `enclave={"v":"refused" ` + now},
		"a token of a later release":         {`enclave={"v":"refused","zz":1}`, `enclave={"v":"refused","zz":1} ` + now},
		"a word that begins like a token":    {"enclave=yes", "enclave=yes " + now},
		"a verdict that does not exist":      {`enclave={"v":"safe","n":1}`, `enclave={"v":"safe","n":1} ` + now},
		"a JSON string that holds our token": {`x={"t":"` + slurm.Stored(old) + `"}`, `x={"t":"` + slurm.Stored(old) + `"} ` + now},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, c.want, site.Merge(c.text, now))
		})
	}
}

func FuzzMerge(f *testing.F) {
	for _, s := range []string{
		"", "a", "JS1:AbC=", `enclave={"v":"refused","n":1}`, "enclave={`v`:`refused`,`n`:1} x", `enclave={"v":"refused"} enclave={"v":"refused"}`,
		`enclave={"v":"refused", enclave={"v":"refused"} "n":1}`, `{"enclave={":1}`, "\x00\xff enclave={",
	} {
		f.Add(s, "reason")
	}
	f.Fuzz(func(t *testing.T, text, reason string) {
		want := site.Accounting{Verdict: enclave.VerdictSimulated, Nodes: 3, Reason: reason}
		token, err := want.Token()
		require.NoError(t, err)
		merged := site.Merge(text, token)
		require.Equal(t, 1, strings.Count(merged, token)-strings.Count(rest(merged, token), token), "there once")
		require.Equal(t, merged, site.Merge(merged, token), "merging again changes nothing")
		if _, had := site.ParseAdminComment(text); !had {
			require.True(t, strings.HasPrefix(merged, text), "foreign text stays byte for byte")
		}
		got, ok := site.ParseAdminComment(merged)
		require.True(t, ok)
		require.Equal(t, enclave.VerdictSimulated, got.Verdict)
		require.LessOrEqual(t, len(merged), len(text)+1+len(token))
	})
}

func rest(merged, token string) string { return strings.Replace(merged, token, "", 1) }
