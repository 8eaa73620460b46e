package slurm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/job"
)

// number is an integer: 7 until v0.0.39, {"set":true,"infinite":false,"number":7} since v0.0.40, or a
// number in quotes.
type number struct {
	Value uint64
	Set   bool // false: not set, or infinite
}

var errNumber = errors.New("not a whole number")

// UnmarshalJSON reads all three spellings; null is not set.
func (n *number) UnmarshalJSON(b []byte) error {
	b = bytes.TrimSpace(b)
	if len(b) > 0 && b[0] == '{' {
		var o struct {
			Set      bool        `json:"set"`
			Infinite bool        `json:"infinite"`
			Number   json.Number `json:"number"`
		}
		if err := json.Unmarshal(b, &o); err != nil {
			return err
		}
		if !o.Set || o.Infinite {
			*n = number{}
			return nil
		}
		return n.read(o.Number)
	}
	var plain json.Number
	if err := json.Unmarshal(b, &plain); err != nil {
		return err
	}
	if plain == "" {
		*n = number{}
		return nil
	}
	return n.read(plain)
}

func (n *number) read(text json.Number) error {
	i, err := text.Int64()
	if err != nil || i < 0 {
		return fmt.Errorf("%w: %q", errNumber, job.Printable(text.String(), 40))
	}
	*n = number{Value: uint64(i), Set: true}
	return nil
}

// flag is true, or 1 of older versions.
type flag bool

// UnmarshalJSON reads true, false, 1 and 0.
func (f *flag) UnmarshalJSON(b []byte) error {
	switch string(bytes.TrimSpace(b)) {
	case "true", "1":
		*f = true
	case "false", "0":
		*f = false
	default:
		return errors.New("neither true nor false")
	}
	return nil
}

// words are "RUNNING", or ["RUNNING"] since v0.0.40.
type words []string

// UnmarshalJSON reads both; each word must be one.
func (w *words) UnmarshalJSON(b []byte) error {
	var list []string
	if b = bytes.TrimSpace(b); len(b) > 0 && b[0] == '[' {
		if err := json.Unmarshal(b, &list); err != nil {
			return err
		}
	} else {
		var one string
		if err := json.Unmarshal(b, &one); err != nil {
			return err
		}
		if one != "" {
			list = strings.Split(one, "+")
		}
	}
	for _, s := range list {
		if s == "" || strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_") != "" {
			return fmt.Errorf("%q is no state", job.Printable(s, 40))
		}
	}
	*w = list
	return nil
}

// exitCode is a wait status: a number until v0.0.38, since then its parts.
type exitCode uint32

// UnmarshalJSON reads both.
func (e *exitCode) UnmarshalJSON(b []byte) error {
	var parts struct {
		Code   number `json:"return_code"`
		Signal struct {
			ID  number `json:"id"`        // since v0.0.40
			Old number `json:"signal_id"` // v0.0.39
		} `json:"signal"`
	}
	if b = bytes.TrimSpace(b); len(b) == 0 || b[0] != '{' {
		var n number
		if err := json.Unmarshal(b, &n); err != nil {
			return err
		}
		if n.Value > math.MaxUint32 {
			return errNumber
		}
		*e = exitCode(n.Value)
		return nil
	}
	// A status that is not a process's own is {"set":...} in no version: return_code is.
	if err := json.Unmarshal(b, &parts); err != nil {
		return err
	}
	signal := max(parts.Signal.ID.Value, parts.Signal.Old.Value)
	if parts.Code.Value > 255 || signal > 127 {
		return errNumber
	}
	*e = exitCode(parts.Code.Value<<8 | signal)
	return nil
}

// outcome is what became of one job: {"error_code":0,"error":"..."}, {"error":{"code":0,"string":"..."}} of a
// cancel, or the words in which slurmdbd names the job that it has changed.
type outcome struct {
	Code uint64
	Text string
}

// UnmarshalJSON reads all three. An object without a code is no success.
func (o *outcome) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		*o = outcome{}
		return json.Unmarshal(b, &o.Text)
	}
	var plain struct {
		Code  *number         `json:"error_code"`
		Error json.RawMessage `json:"error"`
	}
	if err := json.Unmarshal(b, &plain); err != nil {
		return err
	}
	if plain.Code != nil {
		*o = outcome{Code: plain.Code.Value}
		return json.Unmarshal(orEmpty(plain.Error), &o.Text)
	}
	var nested struct {
		Code *number `json:"code"`
		Text string  `json:"string"`
	}
	if err := json.Unmarshal(plain.Error, &nested); err != nil || nested.Code == nil {
		return errors.Join(errors.New("an outcome without a code"), err)
	}
	*o = outcome{Code: nested.Code.Value, Text: nested.Text}
	return nil
}

func orEmpty(b json.RawMessage) json.RawMessage {
	if b == nil {
		return json.RawMessage(`""`)
	}
	return b
}
