package door

import (
	"bytes"

	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/host/file"
)

const configLimit = 1 << 20

// loadConfig reads enclave.yaml; a file that others than root can write is refused.
func loadConfig() (config.Config, error) { return loadConfigFrom(ConfigFile) }

func loadConfigFrom(path string) (config.Config, error) {
	b, err := file.Trust{}.Read(path, configLimit)
	if err != nil {
		return config.Config{}, err
	}
	return config.Load(bytes.NewReader(b))
}
