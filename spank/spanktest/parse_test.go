//go:build cgo

package spanktest_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/gate"
	"github.com/slurm-enclave/slurm-enclave/internal/tenants"
	st "github.com/slurm-enclave/slurm-enclave/spank/spanktest"
)

func TestParseGo(t *testing.T) {
	t.Run("every field arrives", func(t *testing.T) {
		g, ok := st.ParseGo([]byte("slurm-enclave-go 1\njob 4294967295\nrestart 7\nboot " + boot +
			"\nexpires 86523\nenv ENCLAVE_A=x = y\nenv SLURM_PMIX_DIRECT_CONN=false\nend\n"))
		require.True(t, ok)
		assert.Equal(t, st.Go{
			Job: 4294967295, Restart: 7, Boot: boot, Expires: 86523,
			Env: []string{"ENCLAVE_A=x = y", "SLURM_PMIX_DIRECT_CONN=false"},
		}, g)
	})
	for _, c := range []struct{ name, old, now string }{
		{"job 0", "job 4711", "job 0"},
		{"a job beyond 32 bits", "job 4711", "job 4294967296"},
		{"a signed job", "job 4711", "job +4711"},
		{"a time beyond 64 bits", "expires " + far, "expires 18446744073709551616"},
		{"a time with a fraction", "expires " + far, "expires 1.5"},
		{"an upper-case boot id", "boot 1b", "boot 1B"},
		{"a boot id without dashes", "boot " + boot, "boot " + strings.ReplaceAll(boot, "-", "0")},
		{"two blanks", "job 4711", "job  4711"},
		{"a blank at the line's end", "restart 0", "restart 0 "},
		{"carriage returns", "\n", "\r\n"},
		{"a tab", "job 4711", "job\t4711"},
		{"a byte beyond ASCII", "end\n", "env ENCLAVE_A=\xc3\xa4\nend\n"},
		{"a quote in a value", "end\n", "env ENCLAVE_A='\nend\n"},
		{"a backslash in a value", "end\n", "env ENCLAVE_A=\\\nend\n"},
		{"an empty name after the prefix", "end\n", "env ENCLAVE_=1\nend\n"},
		{"a lower-case name", "end\n", "env ENCLAVE_a=1\nend\n"},
		{"a name that only begins as ours", "end\n", "env SLURM_PMIX_DIRECT_CONN_UCX=1\nend\n"},
		{"a variable without a value", "end\n", "env ENCLAVE_A\nend\n"},
		{"a variable that comes twice", "end\n", "env ENCLAVE_A=1\nenv ENCLAVE_A=2\nend\n"},
		{"a value of 201 bytes", "end\n", "env ENCLAVE_A=" + strings.Repeat("x", 201) + "\nend\n"},
		{"a name of 64 bytes", "end\n", "env ENCLAVE_" + strings.Repeat("A", 56) + "=1\nend\n"},
	} {
		t.Run(c.name+" is refused", func(t *testing.T) {
			text := strings.Replace(admission(), c.old, c.now, 1)
			require.NotEqual(t, admission(), text)
			_, ok := st.ParseGo([]byte(text))
			assert.False(t, ok, text)
		})
	}
}

func TestParseDeny(t *testing.T) {
	d, ok := st.ParseDeny([]byte(denial("the report is of another node")))
	require.True(t, ok)
	assert.Equal(t, st.Deny{Job: job, Code: "E220", Reason: "the report is of another node"}, d)

	d, ok = st.ParseDeny([]byte(denial(strings.Repeat("r", 3000))))
	require.True(t, ok, "a long reason is cut")
	assert.Equal(t, strings.Repeat("r", 511), d.Reason)

	for _, bad := range []string{
		"", denial("x") + "\n", strings.Replace(denial("x"), "E220", "220", 1),
		strings.Replace(denial("x"), "E220", "E22x", 1), denial("\x1b[31m"), denial("two\nlines"),
		strings.Replace(denial("x"), "job 4711", "job 0", 1), denial(strings.Repeat("r", 4096)),
	} {
		_, ok := st.ParseDeny([]byte(bad))
		assert.False(t, ok, "%q", bad)
	}
}

func TestParseView(t *testing.T) {
	good := view(far)
	v, ok := st.ParseView([]byte(good))
	require.True(t, ok)
	assert.Equal(t, st.View{Job: job, Boot: boot, Space: 1<<64 - 1}, v)
	for _, bad := range []string{
		"", good + "\n", strings.Replace(good, "view 1", "view 2", 1), strings.Replace(good, "job 4711", "job 0", 1),
		strings.Replace(good, "end\n", "", 1), strings.Replace(good, "namespace "+far, "namespace -1", 1),
		strings.Replace(good, "namespace "+far, "namespace 18446744073709551616", 1), strings.Replace(good, "boot 1b", "boot 1B", 1),
		strings.Replace(good, "end\n", "namespace 1\nend\n", 1), strings.Replace(good, "\n", "\r\n", 1),
	} {
		_, ok := st.ParseView([]byte(bad))
		assert.False(t, ok, "%q", bad)
	}
}

func FuzzViewIsReadAlikeInCAndGo(f *testing.F) {
	f.Add([]byte(view("4026532000")))
	f.Add([]byte(view("0")))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, inC := st.ParseView(b)
		var g gate.View
		inGo := g.UnmarshalText(b) == nil
		require.Equal(t, inGo, inC, "%q", b)
		if inC {
			require.Equal(t, st.View{Job: g.Job, Boot: g.Boot, Space: g.Namespace}, c)
		}
	})
}

func TestTenantNamesAreOneInCAndGo(t *testing.T) {
	for _, name := range []string{
		"", "a", "digimed", "0day", "-a", "_a", "a-b_c", "A", "a b", "a/b", "ä", "(null)",
		strings.Repeat("a", 63), strings.Repeat("a", 64), strings.Repeat("a", 5000),
	} {
		assert.Equal(t, tenants.ValidName(name), st.TenantValid(name), "%.70q", name)
	}
}

// expect is the format as prolog and keeper write it: internal/gate is the oracle, and the two
// readings must not differ in one byte.
func expect(b []byte) (st.Go, bool) {
	var g gate.Go
	if g.UnmarshalText(b) != nil {
		return st.Go{}, false
	}
	want := st.Go{Job: g.Job, Restart: g.Restart, Boot: g.Boot, Expires: g.Expires}
	for _, v := range g.Env {
		want.Env = append(want.Env, v.Name+"="+v.Value)
	}
	return want, true
}

func FuzzGate(f *testing.F) {
	f.Add([]byte(admission()))
	f.Add([]byte(admission("ENCLAVE_VERDICT=simulated", "SLURM_PMIX_DIRECT_CONN=false")))
	f.Add([]byte(admission(many(16)...)))
	f.Add([]byte(admission(many(17)...)))
	f.Add([]byte(denial("x")))
	f.Add([]byte("slurm-enclave-go 1\njob 99999999999999999999\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		want, wantOK := expect(b)
		got, gotOK := st.ParseGo(b)
		require.Equal(t, wantOK, gotOK, "%q", b)
		assert.Equal(t, want, got)
		var written gate.Deny
		d, ok := st.ParseDeny(b)
		if written.UnmarshalText(b) == nil {
			assert.Equal(t, st.Deny{
				Job: written.Job, Code: string(written.Code), Reason: written.Reason,
			}, d, "%q", b)
		}
		if ok {
			assert.NotZero(t, d.Job)
			assert.Regexp(t, `^E\d{3}$`, d.Code)
			assert.Regexp(t, `^[ -~]*$`, d.Reason)
		}
	})
}
