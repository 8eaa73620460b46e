package receipt

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// MaxSize bounds a receipt's file, in bytes. One of a job of 16,384 nodes fits.
const MaxSize = 128 << 20

// signedBody is where the part of a report ends that its signature is over (AMD publication
// 56860, table 23). A signature (r, s) is as good as (r, n-s): a hash of all bytes names nothing.
const signedBody = 0x2a0

// envelope is DSSE's, with its fields in the order of its specification.
type envelope struct {
	Payload     []byte      `json:"payload"`
	PayloadType string      `json:"payloadType"`
	Signatures  []signature `json:"signatures"`
}

type signature struct {
	KeyID string `json:"keyid"` // SHA-256 of the raw Ed25519 key, in hexadecimal
	Sig   []byte `json:"sig"`
}

// PAE is DSSE's pre-authentication encoding: the bytes that are signed.
func PAE(payloadType string, payload []byte) []byte {
	b := append([]byte("DSSEv1 "), strconv.Itoa(len(payloadType))...)
	b = append(append(b, ' '), payloadType...)
	b = strconv.AppendInt(append(b, ' '), int64(len(payload)), 10)
	return append(append(b, ' '), payload...)
}

// KeyID names a key.
func KeyID(key ed25519.PublicKey) enclave.Digest { return sha256.Sum256(key) }

// EvidenceDigest names a report whatever form its signature has. One that is too short to have
// one is hashed whole.
func EvidenceDigest(report []byte) enclave.Digest {
	return sha256.Sum256(report[:min(len(report), signedBody)])
}

// SubjectOf names the start that a statement is about.
func SubjectOf(j enclave.Job) (Subject, error) {
	b, err := encode(j)
	if err != nil {
		return Subject{}, fmt.Errorf("name subject: %w", err)
	}
	return Subject{Name: j.String(), Digest: SubjectDigest{SHA256: sha256.Sum256(b)}}, nil
}

// Seal encodes a statement and signs it: the bytes of the receipt's file.
func Seal(key ed25519.PrivateKey, s Statement) ([]byte, error) {
	if len(key) != ed25519.PrivateKeySize {
		return nil, errors.New("seal receipt: no key")
	}
	statement, err := canonical(s)
	if err != nil {
		return nil, fmt.Errorf("seal receipt: %w", err)
	}
	payload, form, err := pack(statement)
	if err != nil {
		return nil, fmt.Errorf("seal receipt: %w", err)
	}
	public := ed25519.PublicKey(key[ed25519.SeedSize:])
	file, err := encode(envelope{
		Payload: payload, PayloadType: form,
		Signatures: []signature{{KeyID: KeyID(public).String(), Sig: ed25519.Sign(key, PAE(form, payload))}},
	})
	if err != nil {
		return nil, fmt.Errorf("seal receipt: %w", err)
	}
	if file = append(file, '\n'); len(file) > MaxSize {
		return nil, fmt.Errorf("seal receipt: %d bytes, at most %d", len(file), MaxSize)
	}
	return file, nil
}

// Opened is a receipt that could be read. Its signature has not been looked at.
type Opened struct {
	Statement Statement
	Digest    enclave.Digest // SHA-256 of the file: what the next receipt names
	KeyID     enclave.Digest
	payload   []byte
	form      string // the payload's type
	signature []byte
}

// Open reads what Seal wrote and nothing else: a file is refused unless writing it again gives
// the same bytes.
func Open(file []byte) (Opened, error) {
	o, err := open(file)
	if err != nil {
		return Opened{}, fmt.Errorf("open receipt: %w", err)
	}
	return o, nil
}

func open(file []byte) (Opened, error) {
	if len(file) > MaxSize {
		return Opened{}, fmt.Errorf("over %d bytes", MaxSize)
	}
	body, ok := bytes.CutSuffix(file, []byte("\n"))
	if !ok {
		return Opened{}, errors.New("the last line does not end")
	}
	var e envelope
	if err := decode("envelope", body, &e); err != nil {
		return Opened{}, err
	}
	o := Opened{Digest: sha256.Sum256(file), payload: e.Payload, form: e.PayloadType}
	if len(e.Signatures) != 1 {
		return Opened{}, fmt.Errorf("%d signatures, want one", len(e.Signatures))
	}
	o.signature = e.Signatures[0].Sig
	if err := o.KeyID.UnmarshalText([]byte(e.Signatures[0].KeyID)); err != nil || o.KeyID.String() != e.Signatures[0].KeyID {
		return Opened{}, errors.New("the keyid is no SHA-256")
	}
	statement, err := unpack(e.Payload, e.PayloadType)
	if err != nil {
		return Opened{}, err
	}
	if err := decode("statement", statement, &o.Statement); err != nil {
		return Opened{}, err
	}
	if o.Statement.Type != StatementType {
		return Opened{}, fmt.Errorf("statement type %q is not known", o.Statement.Type)
	}
	if t := o.Statement.PredicateType; t != TypeReal && t != TypeSimulated {
		return Opened{}, fmt.Errorf("predicate type %q is not known", t)
	}
	return o, nil
}

// Payload is the bytes that were signed: the statement, or the statement compressed.
func (o Opened) Payload() []byte { return bytes.Clone(o.payload) }

// CheckSignature says whether the key signed the receipt.
func (o Opened) CheckSignature(key ed25519.PublicKey) error {
	if len(key) != ed25519.PublicKeySize || KeyID(key) != o.KeyID {
		return fmt.Errorf("check receipt: signed by key %s, not by this one", o.KeyID)
	}
	if !ed25519.Verify(key, PAE(o.form, o.payload), o.signature) {
		return errors.New("check receipt: the signature does not fit the content")
	}
	return nil
}

// The roles of a signing key.
const (
	RoleReal      = "receipt"
	RoleSimulated = "simulated-receipt"
)

// RoleFor is the only role that may sign this type of receipt.
func RoleFor(predicateType string) string {
	if predicateType == TypeReal {
		return RoleReal
	}
	return RoleSimulated
}

const tagKey = "slurm-enclave/receipt-key/v1"

// endorsed is what the verifier signs for a key in a role.
func endorsed(role string, key enclave.PublicKey) []byte {
	b := binary.BigEndian.AppendUint32([]byte(tagKey), uint32(len(role)))
	return append(append(b, role...), key[:]...)
}

// Endorse has the verifier vouch for a signing key. The verifier's own key is in every report, so
// whoever believes the reports knows whose receipt this is.
func Endorse(verifier ed25519.PrivateKey, role string, key ed25519.PublicKey) Signer {
	s := Signer{Role: role, Key: enclave.PublicKey(key)}
	s.Endorsement = ed25519.Sign(verifier, endorsed(role, s.Key))
	return s
}

// CheckEndorsement says whether the verifier vouches for the key in this role.
func (s Signer) CheckEndorsement(verifier enclave.PublicKey) error {
	if !ed25519.Verify(verifier[:], endorsed(s.Role, s.Key), s.Endorsement) {
		return fmt.Errorf("check receipt key: not the verifier's key for role %q", s.Role)
	}
	return nil
}

// encode writes the one JSON of a value, without a newline. Of printable text jq -c writes the same.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// canonical encodes, and takes care that Open gets the same bytes again: text that is not UTF-8
// is replaced once, in the statement and not only on paper.
func canonical(s Statement) ([]byte, error) {
	b, err := encode(s)
	if err != nil {
		return nil, err
	}
	var again Statement
	if decode("statement", b, &again) == nil {
		return b, nil
	}
	if b, err = encode(again); err != nil {
		return nil, err
	}
	return b, decode("statement", b, &Statement{})
}

// decode refuses every spelling but encode's: unknown, doubled and differently spelled names, white
// space, other escapes, loose bits in base64.
func decode[T any](what string, b []byte, v *T) error {
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	again, err := encode(v)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if !bytes.Equal(again, b) {
		return fmt.Errorf("%s: not in the one form that receipts have", what)
	}
	return nil
}
