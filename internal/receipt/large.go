package receipt

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
)

// Bounds of statements, in bytes of JSON. A small one is signed as it is, for tools that know DSSE
// and in-toto and nothing of us. A large job's, of a thousand nodes and more, is signed compressed: 10,000
// nodes would fill 130 MiB, most of it base64 and words that repeat.
const (
	plainMost     = 8 << 20
	statementMost = 1 << 30
)

// PayloadTypeGzip is the type of a statement that was compressed before it was signed.
const PayloadTypeGzip = PayloadType + "+gzip"

// pack gives the payload of a statement, and its type.
func pack(statement []byte) ([]byte, string, error) {
	if len(statement) <= plainMost {
		return statement, PayloadType, nil
	}
	if len(statement) > statementMost {
		return nil, "", fmt.Errorf("statement of %d bytes, at most %d", len(statement), statementMost)
	}
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(statement); err != nil {
		return nil, "", fmt.Errorf("compress statement: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, "", fmt.Errorf("compress statement: %w", err)
	}
	return out.Bytes(), PayloadTypeGzip, nil
}

// unpack gives the statement of a payload. Which of the two forms it has is settled by its size.
func unpack(payload []byte, payloadType string) ([]byte, error) {
	switch payloadType {
	case PayloadType:
		if len(payload) > plainMost {
			return nil, fmt.Errorf("a statement of %d bytes is compressed", len(payload))
		}
		return payload, nil
	case PayloadTypeGzip:
	default:
		return nil, fmt.Errorf("payload type %q is not known", payloadType)
	}
	in := bytes.NewReader(payload)
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, fmt.Errorf("statement: %w", err)
	}
	z.Multistream(false)
	bounded := &io.LimitedReader{R: z, N: statementMost + 1}
	statement, err := io.ReadAll(bounded)
	switch {
	case err != nil:
		return nil, fmt.Errorf("statement: %w", err)
	case bounded.N <= 0:
		return nil, fmt.Errorf("statement: over %d bytes", statementMost)
	case in.Len() > 0:
		return nil, errors.New("statement: something is behind it")
	case len(statement) <= plainMost:
		return nil, fmt.Errorf("a statement of %d bytes is not compressed", len(statement))
	}
	return statement, nil
}
