package hardware

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestActive(t *testing.T) {
	for name, c := range map[string]struct {
		log  string
		want []string
	}{
		"an SEV guest":                {"<6>[    0.26] x\n<6>[    0.27] Memory Encryption Features active: AMD SEV\n<6>[ 0.28] y\n", []string{"SEV"}},
		"an SNP guest":                {"<6>[    0.27] Memory Encryption Features active: AMD SEV SEV-ES SEV-SNP\n", []string{"SEV", "SEV-ES", "SEV-SNP"}},
		"a host":                      {"<6>[    0.27] Memory Encryption Features active: AMD SME", []string{"SME"}},
		"unknown words are not taken": {"Memory Encryption Features active: AMD SEV \x1b[31mSEV-9", []string{"SEV"}},
		"a TDX guest":                 {"Memory Encryption Features active: Intel TDX\n", nil},
		"a log that has run over":     {"<6>[    9.1] eth0: up\n", nil},
		"no log":                      {"", nil},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, c.want, active(c.log)) })
	}
}
