package claim

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// domain opens every transcript, so that no other hash of the project collides with it.
const domain = "slurm-enclave/report-data/v1"

// fields is the number of fields; each has its position, from 1, as its tag.
const fields = 14

// Transcript encodes the claim: the domain tag, then each field as big-endian u16 tag, u32
// length, value. All fields are present and in order, so two claims never share a transcript.
func (c Claim) Transcript() ([]byte, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	values := [fields][]byte{
		[]byte(c.Cluster),
		c.VerifierKey[:],
		c.Nonce[:],
		binary.BigEndian.AppendUint64(nil, c.Job),
		binary.BigEndian.AppendUint32(nil, c.HetOffset),
		binary.BigEndian.AppendUint32(nil, c.Restart),
		[]byte(c.Node),
		c.WireGuard[:],
		c.Ed25519[:],
		c.HPKE,
		c.Intent[:],
		c.Policy[:],
		{byte(c.Purpose)},
		binary.BigEndian.AppendUint32(nil, c.Epoch),
	}
	t := []byte(domain)
	for i, v := range values {
		t = binary.BigEndian.AppendUint16(t, uint16(i+1)) // #nosec G115 -- i < 14
		t = binary.BigEndian.AppendUint32(t, uint32(len(v)))
		t = append(t, v...)
	}
	return t, nil
}

// ParseTranscript reads what Transcript wrote and nothing else: a receipt carries the
// transcript, and a field that is missing, doubled, out of order or followed by more bytes
// would let one receipt be read in two ways.
func ParseTranscript(t []byte) (Claim, error) {
	rest, ok := bytes.CutPrefix(t, []byte(domain))
	if !ok {
		return Claim{}, errors.New("parse transcript: unknown domain tag")
	}
	var values [fields][]byte
	for i := range values {
		var err error
		if values[i], rest, err = cutField(rest, i+1); err != nil {
			return Claim{}, err
		}
	}
	if len(rest) != 0 {
		return Claim{}, fmt.Errorf("parse transcript: %d bytes after the last field", len(rest))
	}
	c, err := fromValues(values)
	if err != nil {
		return Claim{}, err
	}
	if err := c.Validate(); err != nil {
		return Claim{}, fmt.Errorf("parse transcript: %w", err)
	}
	return c, nil
}

func cutField(b []byte, tag int) (value, rest []byte, err error) {
	if len(b) < 6 {
		return nil, nil, fmt.Errorf("parse transcript: field %d is cut off", tag)
	}
	if got := binary.BigEndian.Uint16(b); int(got) != tag {
		return nil, nil, fmt.Errorf("parse transcript: tag %d where %d belongs", got, tag)
	}
	n := binary.BigEndian.Uint32(b[2:])
	b = b[6:]
	if uint64(n) > uint64(len(b)) {
		return nil, nil, fmt.Errorf("parse transcript: field %d is cut off", tag)
	}
	return b[:n], b[n:], nil
}

func fromValues(v [fields][]byte) (Claim, error) {
	for i, want := range [fields]int{-1, 32, 32, 8, 4, 4, -1, 32, 32, HPKESize, 32, 32, 1, 4} {
		if want >= 0 && len(v[i]) != want {
			return Claim{}, fmt.Errorf("parse transcript: field %d has %d bytes, want %d", i+1, len(v[i]), want)
		}
	}
	c := Claim{
		Cluster:   string(v[0]),
		Job:       binary.BigEndian.Uint64(v[3]),
		HetOffset: binary.BigEndian.Uint32(v[4]),
		Restart:   binary.BigEndian.Uint32(v[5]),
		Node:      string(v[6]),
		HPKE:      bytes.Clone(v[9]),
		Purpose:   Purpose(v[12][0]),
		Epoch:     binary.BigEndian.Uint32(v[13]),
	}
	copy(c.VerifierKey[:], v[1])
	copy(c.Nonce[:], v[2])
	copy(c.WireGuard[:], v[7])
	copy(c.Ed25519[:], v[8])
	copy(c.Intent[:], v[10])
	copy(c.Policy[:], v[11])
	return c, nil
}
