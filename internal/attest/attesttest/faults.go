package attesttest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Faults is what goes wrong with a lab's processor. The file that holds it is read for every
// request, so a test changes it while the lab runs; no file is no fault.
type Faults struct {
	WrongKey         bool   `json:"wrong_key,omitempty"`         // signed with a key that the certificate does not name
	DebugPolicy      bool   `json:"debug_policy,omitempty"`      // the host may decrypt the guest
	OldTCB           bool   `json:"old_tcb,omitempty"`           // outdated firmware, and its genuine VCEK
	Replay           bool   `json:"replay,omitempty"`            // the report answers the question before
	NoReport         bool   `json:"no_report,omitempty"`         // EIO
	OtherChip        string `json:"other_chip,omitempty"`        // the genuine chip of this other node
	WrongMeasurement bool   `json:"wrong_measurement,omitempty"` // another firmware was launched
	Truncated        bool   `json:"truncated,omitempty"`         // a byte of the report is missing
	NoCertificates   bool   `json:"no_certificates,omitempty"`   // the host hands out an empty table
	Slow             int    `json:"slow,omitempty"`              // milliseconds more per report
	Busy             int    `json:"busy,omitempty"`              // so many EBUSY per entry before a report
	Provider         string `json:"provider,omitempty"`          // another kind of machine
}

// ParseFaults reads a faults file. An unknown fault is an error, else a misspelt test would pass.
func ParseFaults(r io.Reader) (Faults, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return Faults{}, fmt.Errorf("read faults: %w", err)
	}
	var f Faults
	if len(bytes.TrimSpace(b)) == 0 {
		return f, nil
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return Faults{}, fmt.Errorf("parse faults: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Faults{}, errors.New("parse faults: more than one value")
	}
	return f, nil
}

func loadFaults(path string) (Faults, error) {
	if path == "" {
		return Faults{}, nil
	}
	f, err := os.Open(path) // #nosec G304 -- the lab's own file
	if errors.Is(err, fs.ErrNotExist) {
		return Faults{}, nil
	}
	if err != nil {
		return Faults{}, fmt.Errorf("open faults: %w", err)
	}
	defer func() { _ = f.Close() }()
	return ParseFaults(f)
}
