package appraise_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/appraise"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

var update = flag.Bool("update", false, "write the golden text anew")

// good is a report that the full policy affirms, and what is expected of it.
func good() (enclave.SNPReport, appraise.Expectation) {
	tcb := enclave.TCB{Bootloader: 4, SNP: 24, Microcode: 219}
	r := enclave.SNPReport{
		Genuine: true, Product: "milan", Part: "milan", Version: 3, Signer: "VCEK", SMT: true,
		ReportData: [64]byte{1, 2, 3}, ChipID: enclave.ChipID{7, 7}, ReportID: [32]byte{8}, PlatformInfo: 0x25, Policy: 0x30000,
		CurrentTCB: tcb, ReportedTCB: tcb, CommittedTCB: tcb, LaunchTCB: tcb,
		Checks: []enclave.Check{
			{Name: "chain", Result: enclave.CheckPass, Reason: "VCEK, SEV-Milan, ARK-Milan"},
			{Name: "crl", Result: enclave.CheckUnknown, Reason: "no CRL given"},
			{Name: "signature", Result: enclave.CheckPass, Reason: "ECDSA"},
		},
	}
	for i := range r.Measurement {
		r.Measurement[i] = byte(i + 1)
	}
	return r, appraise.Expectation{Node: "n1", ReportData: r.ReportData, Chip: r.ChipID.String()}
}

func acceptMasked() []string { return []string{"masked_chips: refuse", "masked_chips: accept"} }

// enrolledMasked is the enrolment of the good report's guest where the host masks CHIP_ID.
func enrolledMasked(w *appraise.Expectation) {
	w.Chip, w.ReportID = enclave.ChipID{}.String(), "08"+strings.Repeat("0", 62)
}

func failed(r enclave.AttestationResult) []string {
	names := []string{}
	for _, c := range r.Checks {
		if c.Result != enclave.CheckPass {
			names = append(names, c.Name)
		}
	}
	return names
}

// text is a result as a person reads it; whole has the checks that passed, too.
func text(r enclave.AttestationResult, whole bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s simulated=%t weak=%t %s %s\n", r.Node, r.Status, r.Simulated, r.Weak, r.Product, r.TCB)
	for _, c := range r.Checks {
		if c.Result == enclave.CheckPass && !whole {
			continue
		}
		fmt.Fprintf(&b, "  %-14s %-7s %s  %s\n", c.Name, c.Result, appraise.CodeOf(c.Name), c.Reason)
	}
	return b.String()
}

func TestEveryRefusal(t *testing.T) {
	type change struct {
		policy []string
		report func(*enclave.SNPReport)
		want   func(*appraise.Expectation)
		failed string // names, in order
	}
	var golden strings.Builder
	for _, tt := range []struct {
		name string
		change
	}{
		{"a node as it should be", change{}},
		{"evidence that is not genuine", change{report: func(r *enclave.SNPReport) {
			r.Genuine = false
			r.Checks[2].Result, r.Checks[2].Reason = enclave.CheckFail, "the VCEK did not sign this report"
		}, failed: "signature"}},
		{"evidence that could not be read", change{report: func(r *enclave.SNPReport) {
			*r = enclave.SNPReport{Checks: []enclave.Check{{Name: "parse", Result: enclave.CheckFail, Reason: "the report is empty"}}}
		}, failed: "parse report_data report_version signer measurement debug migration vmpl smt guest_policy host_data id_key author_key guest_svn " +
			"tcb_minimum tcb_launch tcb_committed platform alias_check mitigations chip simulated covers"}},
		{"genuine evidence without a single check", change{report: func(r *enclave.SNPReport) { r.Checks = nil }, failed: "-"}},
		{"evidence of another job", change{want: func(w *appraise.Expectation) { w.ReportData[63] = 1 }, failed: "report_data"}},
		{"no question at all", change{
			report: func(r *enclave.SNPReport) { r.ReportData = [64]byte{} },
			want:   func(w *appraise.Expectation) { w.ReportData = [64]byte{} }, failed: "report_data",
		}},
		{"an unknown launch digest", change{report: func(r *enclave.SNPReport) { r.Measurement[0] = 9 }, failed: "measurement covers"}},
		{"a guest that the host may debug", change{report: func(r *enclave.SNPReport) { r.Debug = true }, failed: "debug"}},
		{"a guest with a migration agent", change{report: func(r *enclave.SNPReport) { r.MigrationAgent = true }, failed: "migration"}},
		{"another VMPL", change{report: func(r *enclave.SNPReport) { r.VMPL = 1 }, failed: "vmpl"}},
		{"another VMPL that the policy wants", change{policy: []string{"vmpl: 0", "vmpl: 1"}, report: func(r *enclave.SNPReport) { r.VMPL = 1 }}},
		{"SMT where it is denied", change{policy: []string{"smt: allow", "smt: deny"}, failed: "smt"}},
		{"no SMT where it is denied", change{policy: []string{"smt: allow", "smt: deny"}, report: func(r *enclave.SNPReport) { r.SMT = false }}},
		{"old firmware", change{report: func(r *enclave.SNPReport) { r.ReportedTCB.SNP = 23 }, failed: "tcb_minimum"}},
		{"a product that the policy does not name", change{report: func(r *enclave.SNPReport) { r.Product, r.Part = "genoa", "zen4c" }, failed: "tcb_minimum tcb_launch"}},
		{"a milan-x, whose microcode counts for itself", change{report: func(r *enclave.SNPReport) { r.Part = "milan-x" }, failed: "tcb_minimum tcb_launch"}},
		{"a guest that was launched on old firmware", change{report: func(r *enclave.SNPReport) { r.LaunchTCB.SNP = 23 }, failed: "tcb_launch"}},
		{"a guest that was launched on old firmware, as the policy ignores", change{
			policy: []string{"launch_tcb: check", "launch_tcb: ignore"}, report: func(r *enclave.SNPReport) { r.LaunchTCB.SNP = 23 },
		}},
		{"a turin with an old FMC", change{report: func(r *enclave.SNPReport) {
			r.Product, r.Part = "turin", "turin"
			r.ReportedTCB = enclave.TCB{FMC: 0, Bootloader: 1, TEE: 1, SNP: 4, Microcode: 81}
			r.LaunchTCB = enclave.TCB{FMC: 1, Bootloader: 1, TEE: 1, SNP: 4, Microcode: 81}
		}, failed: "tcb_minimum"}},
		{"firmware that the host may take back", change{report: func(r *enclave.SNPReport) { r.CommittedTCB.Microcode-- }, failed: "tcb_committed"}},
		{"firmware that the host may take back, as the policy allows", change{
			policy: []string{"committed_equals_current: true", "committed_equals_current: false"},
			report: func(r *enclave.SNPReport) { r.CommittedTCB.Microcode-- },
		}},
		{"another node's chip", change{report: func(r *enclave.SNPReport) { r.ChipID[63] = 1 }, failed: "chip"}},
		{"a masked chip", change{report: func(r *enclave.SNPReport) { r.ChipID = enclave.ChipID{} }, failed: "chip"}},
		{"a masked chip that was enrolled masked, under a policy that refuses that", change{
			report: func(r *enclave.SNPReport) { r.ChipID = enclave.ChipID{} }, want: enrolledMasked, failed: "chip",
		}},
		{"a masked chip that was enrolled masked", change{
			policy: acceptMasked(), report: func(r *enclave.SNPReport) { r.ChipID = enclave.ChipID{} }, want: enrolledMasked,
		}},
		{"a masked chip after the guest was started anew", change{
			policy: acceptMasked(), want: enrolledMasked,
			report: func(r *enclave.SNPReport) { r.ChipID, r.ReportID = enclave.ChipID{}, [32]byte{9} }, failed: "chip",
		}},
		{"a masked chip without REPORT_ID", change{
			policy: acceptMasked(), want: func(w *appraise.Expectation) { enrolledMasked(w); w.ReportID = strings.Repeat("0", 64) },
			report: func(r *enclave.SNPReport) { r.ChipID, r.ReportID = enclave.ChipID{}, [32]byte{} }, failed: "chip",
		}},
		{"a masked chip whose enrolment has no REPORT_ID", change{
			policy: acceptMasked(), want: func(w *appraise.Expectation) { enrolledMasked(w); w.ReportID = "" },
			report: func(r *enclave.SNPReport) { r.ChipID = enclave.ChipID{} }, failed: "chip",
		}},
		{"a masked chip in the place of one that was enrolled by its name", change{
			policy: acceptMasked(), report: func(r *enclave.SNPReport) { r.ChipID = enclave.ChipID{} }, failed: "chip",
		}},
		{"a named chip in the place of one that was enrolled masked", change{policy: acceptMasked(), want: enrolledMasked, failed: "chip"}},
		{"an enrolment of a masked chip", change{
			policy: acceptMasked(), report: func(r *enclave.SNPReport) { r.ChipID = enclave.ChipID{} },
			want: func(w *appraise.Expectation) { w.Chip, w.Enrolment = "", true },
		}},
		{"an enrolment of a masked chip, under a policy that refuses that", change{
			report: func(r *enclave.SNPReport) { r.ChipID = enclave.ChipID{} },
			want:   func(w *appraise.Expectation) { w.Chip, w.Enrolment = "", true }, failed: "chip",
		}},
		{"a node that is not enrolled", change{want: func(w *appraise.Expectation) { w.Chip = "" }, failed: "chip"}},
		{"an enrolment that is no chip", change{want: func(w *appraise.Expectation) { w.Chip = "0707" }, failed: "chip"}},
		{"an enrolment", change{want: func(w *appraise.Expectation) { w.Chip, w.Enrolment = "", true }}},
		{"simulated evidence", change{report: func(r *enclave.SNPReport) { r.Simulated = true }, failed: "simulated"}},
		{"simulated evidence that the policy allows", change{
			policy: []string{"allow_simulated: false", "allow_simulated: true"},
			report: func(r *enclave.SNPReport) { r.Simulated = true },
		}},
		{"a launch digest of firmware only", change{report: func(r *enclave.SNPReport) { r.Measurement[0] = 0xff }, failed: "covers"}},
		{"a launch digest of firmware only, as the policy accepts", change{
			policy: []string{"weak_boot: refuse", "weak_boot: accept"},
			report: func(r *enclave.SNPReport) { r.Measurement[0] = 0xff },
		}},
		{"no CRL where one is required", change{policy: []string{"require_crl: false", "require_crl: true"}, failed: "crl"}},
		{"a revoked key", change{report: func(r *enclave.SNPReport) {
			r.Genuine = false
			r.Checks[1].Result, r.Checks[1].Reason = enclave.CheckFail, "SEV-Milan is revoked"
		}, failed: "crl"}},
		{"a version 2 report", change{report: func(r *enclave.SNPReport) { r.Version, r.PlatformInfo = 2, 1 }, failed: "report_version"}},
		{"a version 2 report that the policy accepts", change{
			policy: []string{"version_2_reports: refuse", "version_2_reports: accept"},
			report: func(r *enclave.SNPReport) { r.Version, r.PlatformInfo = 2, 1 },
		}},
		{"a VLEK", change{report: func(r *enclave.SNPReport) { r.Signer = "VLEK" }, failed: "signer"}},
		{"a VLEK that the policy accepts", change{policy: []string{"vlek: refuse", "vlek: accept"}, report: func(r *enclave.SNPReport) { r.Signer = "VLEK" }}},
		{"no signer, under a policy that accepts VLEKs", change{
			policy: []string{"vlek: refuse", "vlek: accept"}, report: func(r *enclave.SNPReport) { r.Signer = "none" }, failed: "signer",
		}},
		{"memory in CXL devices", change{report: func(r *enclave.SNPReport) { r.Policy |= 1 << 21 }, failed: "guest_policy"}},
		{"memory in CXL devices that the policy accepts", change{
			policy: []string{"cxl: refuse", "cxl: accept"}, report: func(r *enclave.SNPReport) { r.Policy |= 1 << 21 },
		}},
		{"a guest policy that demands too little", change{
			policy: []string{"vmpl: 0", "guest_policy: [single_socket, ciphertext_hiding]"},
			report: func(r *enclave.SNPReport) { r.Policy |= 1 << 20 }, failed: "guest_policy",
		}},
		{"a guest policy that demands what it has to", change{
			policy: []string{"vmpl: 0", "guest_policy: [single_socket, aes_256_xts, rapl_disabled, ciphertext_hiding, page_swap_disabled]"},
			report: func(r *enclave.SNPReport) { r.Policy |= 1<<20 | 0xf<<22 },
		}},
		{"HOST_DATA that is not in the list", change{policy: []string{"vmpl: 0", "host_data: [" + strings.Repeat("01", 32) + "]"}, failed: "host_data"}},
		{"HOST_DATA that is in the list", change{
			policy: []string{"vmpl: 0", "host_data: [" + strings.Repeat("02", 32) + ", " + strings.Repeat("01", 32) + "]"},
			report: func(r *enclave.SNPReport) { r.HostData = [32]byte(bytes.Repeat([]byte{1}, 32)) },
		}},
		{"no ID key", change{policy: []string{"vmpl: 0", "id_keys: [" + strings.Repeat("01", 48) + "]"}, failed: "id_key"}},
		{"another ID key", change{
			policy: []string{"vmpl: 0", "id_keys: [" + strings.Repeat("01", 48) + "]"},
			report: func(r *enclave.SNPReport) { r.IDKeyDigest = enclave.KeyDigest{2} }, failed: "id_key",
		}},
		{"an ID key of the list", change{
			policy: []string{"vmpl: 0", "id_keys: [" + strings.Repeat("01", 48) + "]"},
			report: func(r *enclave.SNPReport) { r.IDKeyDigest = enclave.KeyDigest(bytes.Repeat([]byte{1}, 48)) },
		}},
		{"no author key", change{
			policy: []string{"vmpl: 0", "author_keys: [" + strings.Repeat("01", 48) + "]"},
			report: func(r *enclave.SNPReport) { r.IDKeyDigest = enclave.KeyDigest(bytes.Repeat([]byte{1}, 48)) }, failed: "author_key",
		}},
		{"an author key of the list", change{
			policy: []string{"vmpl: 0", "author_keys: [" + strings.Repeat("01", 48) + "]"},
			report: func(r *enclave.SNPReport) { r.AuthorKeyDigest = enclave.KeyDigest(bytes.Repeat([]byte{1}, 48)) },
		}},
		{"an old image", change{policy: []string{"vmpl: 0", "minimum_guest_svn: 7"}, report: func(r *enclave.SNPReport) { r.GuestSVN = 6 }, failed: "guest_svn"}},
		{"an image that is just new enough", change{policy: []string{"vmpl: 0", "minimum_guest_svn: 7"}, report: func(r *enclave.SNPReport) { r.GuestSVN = 7 }}},
		{"a machine without what the policy asks for", change{
			policy: []string{"vmpl: 0", "platform: [ecc, tsme, smt_disabled]"}, failed: "platform",
		}},
		{"a machine with what the policy asks for", change{
			policy: []string{"vmpl: 0", "platform: [smt_disabled, tsme, ecc, rapl_disabled, ciphertext_hiding, tio]"},
			report: func(r *enclave.SNPReport) { r.PlatformInfo = 0xbe },
		}},
		{"memory that nobody looked at for aliases", change{report: func(r *enclave.SNPReport) { r.PlatformInfo &^= 1 << 5 }, failed: "alias_check"}},
		{"memory that nobody looked at for aliases, as the policy ignores", change{
			policy: []string{"alias_check: require", "alias_check: ignore"}, report: func(r *enclave.SNPReport) { r.PlatformInfo &^= 1 << 5 },
		}},
		{"a mitigation that came after launch", change{
			policy: []string{"vmpl: 0", "mitigations: [0, 3]"},
			report: func(r *enclave.SNPReport) { r.LaunchMitigations, r.CurrentMitigations = 1, 9 }, failed: "mitigations",
		}},
		{"a mitigation that went away after launch", change{
			policy: []string{"vmpl: 0", "mitigations: [63]"},
			report: func(r *enclave.SNPReport) { r.LaunchMitigations = 1 << 63 }, failed: "mitigations",
		}},
		{"all mitigations", change{
			policy: []string{"vmpl: 0", "mitigations: [0, 3]"},
			report: func(r *enclave.SNPReport) { r.LaunchMitigations, r.CurrentMitigations = 9, 11 },
		}},
		{"many faults at once", change{report: func(r *enclave.SNPReport) {
			r.Debug, r.MigrationAgent, r.VMPL, r.ReportedTCB = true, true, 3, enclave.TCB{}
		}, failed: "debug migration vmpl tcb_minimum"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, want := good()
			if tt.report != nil {
				tt.report(&r)
			}
			if tt.want != nil {
				tt.want(&want)
			}
			res := appraise.Appraise(policy(t, edit(t, tt.policy...)), r, want)
			fmt.Fprintf(&golden, "%s\n%s\n", tt.name, text(res, golden.Len() == 0 || tt.failed == ""))
			if tt.failed == "-" {
				assert.Empty(t, failed(res))
			} else {
				assert.Equal(t, tt.failed, strings.Join(failed(res), " "))
			}
			assert.Equal(t, tt.failed == "", res.Status == enclave.StatusAffirming)
			for _, c := range res.Checks {
				assert.NotEmpty(t, c.Reason, c.Name)
			}
		})
	}
	const path = "testdata/refusals.golden"
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(golden.String()), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, string(want), golden.String())
}

func TestZeroPolicyAffirmsNothing(t *testing.T) {
	r, want := good()
	res := appraise.Appraise(appraise.Policy{}, r, want)
	assert.Equal(t, enclave.StatusContraindicated, res.Status)
	for _, name := range []string{"measurement", "tcb_minimum", "covers", "smt"} {
		assert.Contains(t, failed(res), name)
	}
}

func TestWeakIsSaid(t *testing.T) {
	r, want := good()
	r.Measurement[0] = 0xff
	accept := policy(t, edit(t, "weak_boot: refuse", "weak_boot: accept"))
	res := appraise.Appraise(accept, r, want)
	assert.True(t, res.Weak)
	assert.Equal(t, enclave.StatusAffirming, res.Status)
	r, want = good()
	assert.False(t, appraise.Appraise(accept, r, want).Weak, "a strong node under a lax policy is strong")
}

func TestCodesAreOnePerCheck(t *testing.T) {
	r, want := good()
	res := appraise.Appraise(policy(t, full(t)), r, want)
	seen := map[enclave.Code]string{}
	for _, c := range res.Checks {
		code := appraise.CodeOf(c.Name)
		if code == appraise.CodeGenuine {
			continue
		}
		assert.Empty(t, seen[code], c.Name)
		seen[code] = c.Name
	}
	assert.Len(t, seen, 23)
	assert.Equal(t, appraise.CodeGenuine, appraise.CodeOf("signature"))
	assert.Equal(t, appraise.CodeGenuine, appraise.CodeOf("no such check"))
}
