package doctor_test

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/etc"
	"github.com/slurm-enclave/slurm-enclave/internal/doctor"
	"github.com/slurm-enclave/slurm-enclave/internal/doctor/doctortest"
)

// namespaced is a site whose jobs have namespaces, by the book but for what a test changes.
func namespaced(t *testing.T, release string, change func(doctortest.Files)) []doctor.Symptom {
	t.Helper()
	f := host(t)
	sample, err := fs.ReadFile(etc.Samples, "job_container.conf")
	require.NoError(t, err)
	f.Text["/etc/slurm/job_container.conf"] = string(sample)
	f.Text[conf] += "JobContainerType=job_container/tmpfs\n"
	if change != nil {
		change(f)
	}
	return examine(t, f, func(s *doctor.Site) {
		s.Config.Storage.Isolation = "namespace"
		s.Live = map[string]string{"slurm_version": release}
	})
}

func TestIsolationNamespace(t *testing.T) {
	t.Parallel()
	t.Run("the sample keeps the rules on 24.11", func(t *testing.T) {
		assert.Empty(t, broken(namespaced(t, "24.11.5", nil)))
	})
	for _, release := range []string{"22.05.8", "23.11.4", "24.05.2", "25.05.1", "25.11.0", "26.05.5"} {
		t.Run("Slurm "+release+" is refused", func(t *testing.T) {
			found := broken(namespaced(t, release, nil))
			require.Len(t, found, 1)
			assert.Equal(t, "E324", string(found[0].Code))
			assert.Contains(t, found[0].Fix, "isolation: node")
		})
	}
	t.Run("a Slurm without namespaces is refused with the line to write", func(t *testing.T) {
		found := broken(namespaced(t, "24.11.5", func(f doctortest.Files) {
			f.Text[conf] = strings.Replace(f.Text[conf], "JobContainerType=job_container/tmpfs", "", 1)
		}))
		require.Len(t, found, 1)
		assert.Equal(t, "E323", string(found[0].Code))
		assert.Contains(t, found[0].Fix, "add to /etc/slurm/slurm.conf: JobContainerType=job_container/tmpfs")
	})
	t.Run("so is one that runs another script in them", func(t *testing.T) {
		found := broken(namespaced(t, "24.11.5", func(f doctortest.Files) {
			f.Text["/etc/slurm/job_container.conf"] = strings.Replace(f.Text["/etc/slurm/job_container.conf"], "enclave-view", "ours", 1)
		}))
		require.Len(t, found, 1)
		assert.Equal(t, "E323", string(found[0].Code))
		assert.Contains(t, found[0].Fix, "CloneNSScript=/usr/libexec/slurm-enclave/enclave-view")
	})
	t.Run("nodes are whole all the same", func(t *testing.T) {
		found := broken(namespaced(t, "24.11.5", func(f doctortest.Files) {
			f.Text[partition] = strings.Replace(f.Text[partition], "OverSubscribe=EXCLUSIVE", "OverSubscribe=YES", 1)
		}))
		require.Len(t, found, 1)
		assert.Equal(t, "E020", string(found[0].Code))
	})
}
