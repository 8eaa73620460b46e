package ground_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/etc"
	"github.com/slurm-enclave/slurm-enclave/internal/ground"
)

// written is a host's configuration by path.
type written map[string]string

func (w written) Read(name string) ([]byte, error) {
	text, ok := w[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return []byte(text), nil
}

func (written) Glob(string) ([]string, error) { return nil, nil }

func (w written) Secure(name string) error {
	if strings.Contains(w[name], "insecure") {
		return errors.New(name + " can be written by others")
	}
	if _, ok := w[name]; !ok {
		return fs.ErrNotExist
	}
	return nil
}

func TestContainer(t *testing.T) {
	const conf, jc, script = "/etc/slurm/slurm.conf", "/etc/slurm/job_container.conf", "/usr/libexec/slurm-enclave/enclave-view"
	sample, err := fs.ReadFile(etc.Samples, "job_container.conf")
	require.NoError(t, err)
	good := func() written {
		return written{conf: "JobContainerType=job_container/tmpfs\n", jc: string(sample)}
	}
	assert.Nil(t, ground.Container(good(), conf, script, []string{"n1", "n2"}), "the sample is as it must be")
	for name, c := range map[string]struct {
		file, from, to, fix string
	}{
		"no plugin":                    {conf, "JobContainerType", "#", "add to /etc/slurm/slurm.conf: JobContainerType=job_container/tmpfs"},
		"another plugin":               {conf, "/tmpfs", "/none", "write in /etc/slurm/slurm.conf line 1: JobContainerType=job_container/tmpfs"},
		"no script":                    {jc, "CloneNSScript", "#", "behind it: CloneNSScript=" + script},
		"a script on another line":     {jc, " CloneNSScript=", "\nCloneNSScript=", "behind it: CloneNSScript=" + script},
		"a script before the path":     {jc, "BasePath=/var/spool/slurm-namespaces CloneNSScript=" + script, "CloneNSScript=" + script + " BasePath=/x", "behind it: CloneNSScript=" + script},
		"another script":               {jc, "enclave-view", "mine", "CloneNSScript=" + script},
		"another script for one node":  {jc, "AutoBasePath", "NodeName=n[2-4] BasePath=/x CloneNSScript=/bin/true\nAutoBasePath", "CloneNSScript=" + script},
		"output outside of the view":   {jc, "EntireStepInNS=true", "EntireStepInNS=false", "EntireStepInNS=true"},
		"nothing said of the output":   {jc, "EntireStepInNS", "#", "EntireStepInNS=true"},
		"no namespaces at all":         {jc, "BasePath=/var/spool/slurm-namespaces", "BasePath=none", "BasePath=/var"},
		"no namespaces on one node":    {jc, "AutoBasePath", "NodeName=n1 BasePath=none\nAutoBasePath", "BasePath=/var"},
		"nothing for one of our nodes": {jc, "BasePath=/var", "NodeName=n2 BasePath=/var", "add to /etc/slurm/job_container.conf: BasePath=/var/spool/slurm-namespaces CloneNSScript=" + script},
		"a hostlist that is none":      {jc, "AutoBasePath", "NodeName=n[1- BasePath=/x\nAutoBasePath", "hostlist"},
		"a file that others write":     {jc, "# slurm-enclave", "# insecure", "root's alone"},
	} {
		t.Run(name, func(t *testing.T) {
			w := good()
			require.Contains(t, w[c.file], c.from)
			w[c.file] = strings.Replace(w[c.file], c.from, c.to, 1)
			r := ground.Container(w, conf, script, []string{"n1", "n2"})
			require.NotNil(t, r)
			assert.Equal(t, ground.CodeContainer, r.Code)
			assert.Contains(t, r.Fix, c.fix)
		})
	}
	t.Run("what other nodes have is their affair", func(t *testing.T) {
		w := good()
		w[jc] = strings.Replace(w[jc], "BasePath=/var", "NodeName=c[1-9] BasePath=none\nNodeName=n[1-2] BasePath=/var", 1)
		require.Nil(t, ground.Container(w, conf, script, []string{"n1", "n2"}))
	})
	t.Run("no file at all", func(t *testing.T) {
		w := good()
		delete(w, jc)
		require.NotNil(t, ground.Container(w, conf, script, []string{"n1", "n2"}))
	})
}
