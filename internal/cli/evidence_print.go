package cli

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
)

// verdictJSON is read by others: names don't change.
type verdictJSON struct {
	Valid   bool            `json:"valid"`
	Product string          `json:"product"`
	Version uint32          `json:"version"`
	Checks  []enclave.Check `json:"checks"`
}

// verdict is the error of a report that is not valid, with its exit status.
func verdict(res snp.Result) error {
	if res.Genuine {
		return nil
	}
	if res.NoCertificate {
		return &ExitError{ExitUnknown, fmt.Errorf("evidence verify: no certificate of the %s is known: give --cert", res.Signer)}
	}
	var failed []error
	for _, c := range res.Checks {
		if c.Result == enclave.CheckFail {
			failed = append(failed, fmt.Errorf("evidence verify: check %s: %s", c.Name, c.Reason))
		}
	}
	return &ExitError{ExitInvalid, errors.Join(failed...)}
}

func printVerdict(out io.Writer, res snp.Result, asJSON bool) error {
	if asJSON {
		return printJSON(out, verdictJSON{res.Genuine, res.Product, res.Version, res.Checks})
	}
	word := "INVALID"
	switch {
	case res.Genuine:
		word = "valid"
	case res.NoCertificate:
		word = "unknown"
	}
	_, err := fmt.Fprintf(out, "%s  product %s  report version %d\n", word, or(res.Product, "unknown"), res.Version)
	for _, c := range res.Checks {
		if err == nil {
			_, err = fmt.Fprintf(out, "  %-10s %-8s %s\n", c.Name, c.Result, c.Reason)
		}
	}
	return err
}

// reportJSON is the report's fields as `evidence show --json` gives them.
type reportJSON struct {
	Verified       bool                `json:"verified"` // never by this command
	Version        uint32              `json:"version"`
	Product        string              `json:"product"`
	Part           string              `json:"part"`
	Signer         string              `json:"signer"`
	Measurement    enclave.Measurement `json:"measurement"`
	ReportData     string              `json:"report_data"`
	HostData       string              `json:"host_data"`
	ReportID       string              `json:"report_id"`
	ChipID         enclave.ChipID      `json:"chip_id"`
	VMPL           uint32              `json:"vmpl"`
	Policy         string              `json:"policy"`
	Debug          bool                `json:"debug"`
	MigrationAgent bool                `json:"migration_agent"`
	SMT            bool                `json:"smt"`
	CurrentTCB     enclave.TCB         `json:"current_tcb"`
	ReportedTCB    enclave.TCB         `json:"reported_tcb"`
	CommittedTCB   enclave.TCB         `json:"committed_tcb"`
	LaunchTCB      enclave.TCB         `json:"launch_tcb"`
	PlatformInfo   string              `json:"platform_info"`
	GuestSVN       uint32              `json:"guest_svn"`
	IDKey          enclave.KeyDigest   `json:"id_key_digest"`
	AuthorKey      enclave.KeyDigest   `json:"author_key_digest"`
	LaunchMit      string              `json:"launch_mitigations"`
	CurrentMit     string              `json:"current_mitigations"`
}

func show(out io.Writer, report []byte, asJSON bool) error {
	res := snp.Verify(report, snp.Chain{}, snp.Options{}) // for its fields: it trusts nobody
	if res.Version == 0 {
		for _, c := range res.Checks {
			if c.Result == enclave.CheckFail {
				return &ExitError{ExitInvalid, fmt.Errorf("evidence show: check %s: %s", c.Name, c.Reason)}
			}
		}
	}
	r := reportJSON{
		Version: res.Version, Product: res.Product, Part: res.Part, Signer: res.Signer, Measurement: res.Measurement,
		ReportData: hex.EncodeToString(res.ReportData[:]), HostData: hex.EncodeToString(res.HostData[:]),
		ReportID: hex.EncodeToString(res.ReportID[:]), ChipID: res.ChipID, VMPL: res.VMPL,
		Policy: fmt.Sprintf("%#x", res.Policy), Debug: res.Debug, MigrationAgent: res.MigrationAgent, SMT: res.SMT,
		CurrentTCB: res.CurrentTCB, ReportedTCB: res.ReportedTCB, CommittedTCB: res.CommittedTCB, LaunchTCB: res.LaunchTCB,
		PlatformInfo: fmt.Sprintf("%#x", res.PlatformInfo), GuestSVN: res.GuestSVN, IDKey: res.IDKeyDigest, AuthorKey: res.AuthorKeyDigest,
		LaunchMit: fmt.Sprintf("%#x", res.LaunchMitigations), CurrentMit: fmt.Sprintf("%#x", res.CurrentMitigations),
	}
	var err error
	if asJSON {
		err = printJSON(out, r)
	} else {
		err = r.print(out)
	}
	if err != nil {
		return &ExitError{ExitFailure, err}
	}
	return nil
}

func (r reportJSON) print(out io.Writer) error {
	_, err := fmt.Fprintf(out, `not verified: what follows is what the file says
version        %d
product        %s
signed by      %s
measurement    %s
report data    %s
host data      %s
report id      %s
chip id        %s
vmpl           %d
guest policy   %s debug=%t migration_agent=%t smt=%t
tcb            bl/tee/snp/ucode reported %s, current %s, committed %s, launch %s
platform info  %s
guest svn      %d
id key         %s
author key     %s
mitigations    launch %s, current %s
`, r.Version, or(r.Part, "unknown"), r.Signer, r.Measurement, r.ReportData, r.HostData, r.ReportID, r.ChipID, r.VMPL,
		r.Policy, r.Debug, r.MigrationAgent, r.SMT, r.ReportedTCB, r.CurrentTCB, r.CommittedTCB, r.LaunchTCB,
		r.PlatformInfo, r.GuestSVN, r.IDKey, r.AuthorKey, r.LaunchMit, r.CurrentMit)
	return err
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
