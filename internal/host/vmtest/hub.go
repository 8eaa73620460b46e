package vmtest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Hub is the wire between machines: what one sends all others get, the test sees all of it, and
// can send in anybody's name. It is in this process, over socket pairs with QEMU's `stream`
// network: nothing of the host's network is touched. The zero Hub is ready.
type Hub struct {
	mu     sync.Mutex
	ports  []chan []byte
	frames [][]byte
}

// maxFrame is that of QEMU's network, with room for its header.
const maxFrame = 1 << 17

// port gives the end of a new port that QEMU gets.
func (h *Hub) port() (*os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket pair: %w", err)
	}
	theirs, file := os.NewFile(uintptr(pair[0]), "port"), os.NewFile(uintptr(pair[1]), "hub")
	ours, err := net.FileConn(file)
	_ = file.Close()
	if err != nil {
		return nil, fmt.Errorf("open hub's end: %w", err)
	}
	out := make(chan []byte, 4096)
	h.mu.Lock()
	number := len(h.ports)
	h.ports = append(h.ports, out)
	h.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = ours.Close() }() // QEMU has ended
		var err error
		for err == nil {
			err = h.read(ours, number)
		}
	}()
	go func() {
		for {
			select {
			case b := <-out:
				head := binary.BigEndian.AppendUint32(nil, uint32(len(b)))
				if _, err := ours.Write(append(head, b...)); err != nil {
					return
				}
			case <-done:
				return
			}
		}
	}()
	return theirs, nil
}

// read takes one frame: four bytes of length and the frame.
func (h *Hub) read(from io.Reader, port int) error {
	var head [4]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return fmt.Errorf("frame of %d bytes", n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(from, b); err != nil {
		return err
	}
	h.pass(b, port)
	return nil
}

// Send puts a frame on the wire as a neighbour of all machines would.
func (h *Hub) Send(frame []byte) { h.pass(bytes.Clone(frame), -1) }

func (h *Hub) pass(b []byte, from int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.frames = append(h.frames, b)
	for i, p := range h.ports {
		if i == from {
			continue
		}
		select {
		case p <- b:
		default: // a full port drops, as a switch does
		}
	}
}

// Clear forgets what was seen so far, after a moment for frames under way.
func (h *Hub) Clear() {
	h.settle()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.frames = nil
}

// Frames are the Ethernet frames seen since Clear, in their order.
func (h *Hub) Frames() [][]byte {
	h.settle()
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([][]byte(nil), h.frames...)
}

// Holds says how many frames hold these bytes in clear.
func (h *Hub) Holds(payload string) int {
	n := 0
	for _, f := range h.Frames() {
		if bytes.Contains(f, []byte(payload)) {
			n++
		}
	}
	return n
}

func (h *Hub) settle() {
	timer := time.NewTimer(300 * time.Millisecond)
	defer timer.Stop()
	<-timer.C
}
