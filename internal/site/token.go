package site

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/job"
	"github.com/slurm-enclave/slurm-enclave/internal/slurm"
)

const (
	opening = "enclave="
	// MaxToken bounds the token: AdminComment belongs to others too.
	MaxToken  = 300
	maxReason = 100
	maxPolicy = 12
)

// Accounting is what AdminComment says of a start of a job, as the one token "enclave={json}".
type Accounting struct {
	Verdict enclave.Verdict `json:"v"`           // protected, simulated, refused or incomplete
	Nodes   int             `json:"n"`           // how many nodes the verdict is about
	Policy  string          `json:"p,omitempty"` // first 12 hexadecimal digits of the policy digest
	Code    enclave.Code    `json:"r,omitempty"` // why it was refused
	Reason  string          `json:"t,omitempty"` // the same in words, cut
	Restart uint32          `json:"s,omitempty"` // the start; Slurm carries the text over to the next
	Weak    bool            `json:"w,omitempty"` // the evidence does not cover the root file system
}

// Token spells the accounting value. The reason keeps no quote, so that both spellings, with
// quotes and as sacctmgr leaves them, mean the same.
func (a Accounting) Token() (string, error) {
	a.Reason = strings.Map(func(r rune) rune {
		if strings.ContainsRune("\"'`\\", r) {
			return ' '
		}
		return r
	}, job.Printable(a.Reason, maxReason))
	a.Policy = a.Policy[:min(len(a.Policy), maxPolicy)]
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(a); err != nil {
		return "", fmt.Errorf("encode accounting: %w", err)
	}
	token := opening + strings.TrimSpace(b.String())
	if len(token) > MaxToken {
		return "", fmt.Errorf("encode accounting: %d bytes, at most %d", len(token), MaxToken)
	}
	if _, n := parseToken(token); n != len(token) {
		return "", fmt.Errorf("encode accounting: %s does not read back", token)
	}
	return token, nil
}

// Merge puts the token into a text that others write to as well. Every earlier token of ours
// is replaced; all else stays as it is, byte for byte, also what merely looks like a token.
func Merge(text, token string) string {
	for {
		spans := findTokens(text)
		switch len(spans) {
		case 0:
			if text == "" || strings.HasSuffix(text, " ") {
				return text + token
			}
			return text + " " + token
		case 1:
			return text[:spans[0][0]] + token + text[spans[0][1]:]
		}
		last := spans[len(spans)-1]
		text = text[:last[0]] + text[last[1]:]
	}
}

// ParseAdminComment finds our token in an AdminComment, in either spelling.
func ParseAdminComment(text string) (Accounting, bool) {
	spans := findTokens(text)
	if len(spans) == 0 {
		return Accounting{}, false
	}
	a, _ := parseToken(text[spans[0][0]:])
	return a, true
}

// findTokens gives the spans of our tokens: a token is a word, with a space or an end of the
// text on both sides.
func findTokens(text string) [][2]int {
	var spans [][2]int
	for at := 0; at < len(text); {
		i := strings.Index(text[at:], opening)
		if i < 0 {
			break
		}
		i += at
		_, n := parseToken(text[i:])
		end := i + n
		if n == 0 || i > 0 && !space(text[i-1]) || end < len(text) && !space(text[end]) {
			at = i + len(opening)
			continue
		}
		spans = append(spans, [2]int{i, end})
		at = end
	}
	return spans
}

func space(c byte) bool { return c == ' ' || c == '\n' || c == '\t' }

// parseToken reads a token at the beginning of s and gives its length, 0 when there is none.
// sacctmgr writes backticks for quotes and small letters for capitals, byte for byte.
func parseToken(s string) (Accounting, int) {
	s, ok := strings.CutPrefix(s, opening)
	if !ok || !strings.HasPrefix(s, "{") {
		return Accounting{}, 0
	}
	s = s[:min(len(s), MaxToken)]
	for _, spelling := range []string{s, strings.ReplaceAll(s, "`", `"`)} {
		var a Accounting
		d := json.NewDecoder(strings.NewReader(spelling))
		d.DisallowUnknownFields()
		if d.Decode(&a) == nil && known(a.Verdict) {
			a.Code = enclave.Code(strings.ToUpper(string(a.Code)))
			return a, len(opening) + int(d.InputOffset())
		}
	}
	return Accounting{}, 0
}

// pending is what enclave.lua writes at submit, until there is a verdict.
const pending enclave.Verdict = "pending"

func known(v enclave.Verdict) bool {
	switch v {
	case pending, enclave.VerdictProtected, enclave.VerdictSimulated, enclave.VerdictRefused, enclave.VerdictIncomplete:
		return true
	}
	return false
}

// spell gives the token the spelling that survives where it is written.
func spell(token string, finished bool) string {
	if finished {
		return slurm.Stored(token)
	}
	return token
}
