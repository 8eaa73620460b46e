// Package tunnel is userspace WireGuard for nodes whose kernel has none, and the probe that
// asks through a tunnel, whoever holds it, whether the neighbours are there.
package tunnel

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/ipc"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/slurm-enclave/slurm-enclave/internal/host/crossing"
)

// Device is a WireGuard interface that this process holds. It is gone when the process is.
type Device struct {
	wireguard *device.Device
	control   *net.UnixListener
	path      string // of its socket
	close     sync.Once
}

// Open makes the interface, without key and peers and not up, and the control socket by which
// it is configured (/var/run/wireguard, root only). It fails when the name is taken.
func Open(name string, mtu int) (*Device, error) {
	if _, err := net.InterfaceByName(name); err == nil {
		return nil, fmt.Errorf("make %s: there is one already", name)
	}
	t, err := openCard(name, mtu)
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	return control(name, t, newBind())
}

// control makes the device of its two sides, and the control socket.
func control(name string, t tun.Device, b conn.Bind) (*Device, error) {
	d := &Device{wireguard: device.NewDevice(t, crossing.Wrap(b), device.NewLogger(device.LogLevelSilent, "")), path: filepath.Join(controlDirectory, name+".sock")}
	socket, err := ipc.UAPIOpen(name)
	if err != nil {
		d.wireguard.Close()
		return nil, fmt.Errorf("open control socket of %s: %w", name, err)
	}
	l, err := net.FileListener(socket)
	_ = socket.Close() // the listener has a copy of its own
	unix, ok := l.(*net.UnixListener)
	if err != nil || !ok {
		d.wireguard.Close()
		return nil, fmt.Errorf("listen on control socket of %s: %w", name, errors.Join(err, os.ErrInvalid))
	}
	unix.SetUnlinkOnClose(true)
	d.control = unix
	go d.serve()
	return d, nil
}

// controlDirectory is where wgctrl looks for the sockets of userspace devices.
const controlDirectory = "/var/run/wireguard"

// lookPause is how often the control socket is looked for, and wantPause how long a device that has no
// file descriptor left for a caller waits for one.
const (
	lookPause = time.Second
	wantPause = 100 * time.Millisecond
)

// serve answers on the control socket until it is closed. wireguard-go's own listener ends with the first
// caller for whom there is no file descriptor, and the tunnel would end with it.
func (d *Device) serve() {
	for {
		_ = d.control.SetDeadline(time.Now().Add(lookPause))
		c, err := d.control.Accept()
		switch {
		case err == nil:
			go d.wireguard.IpcHandle(c)
			continue
		case errors.Is(err, os.ErrDeadlineExceeded):
			if _, gone := os.Lstat(d.path); !errors.Is(gone, fs.ErrNotExist) {
				continue
			}
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.ECONNABORTED):
			select {
			case <-time.After(wantPause):
				continue
			case <-d.Done():
				return
			}
		}
		// It was closed here, or somebody deleted it: nobody can configure or count this device any more.
		d.wireguard.Close()
		return
	}
}

// Done is closed when the device has ended: closed here, or deleted by somebody else.
func (d *Device) Done() <-chan struct{} { return d.wireguard.Wait() }

// Close deletes the interface and the control socket, and wipes the keys.
func (d *Device) Close() error {
	var err error
	d.close.Do(func() {
		d.wireguard.Close()
		err = d.control.Close()
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, net.ErrClosed) {
			err = nil
		}
	})
	return err
}
