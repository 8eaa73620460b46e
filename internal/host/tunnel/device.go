// Package tunnel is userspace WireGuard for nodes whose kernel has none, and the probe that
// asks through a tunnel, whoever holds it, whether the neighbours are there.
package tunnel

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/ipc"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/slurm-enclave/slurm-enclave/internal/host/crossing"
)

// Device is a WireGuard interface that this process holds. It is gone when the process is.
type Device struct {
	wireguard *device.Device
	control   net.Listener
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
	d := &Device{wireguard: device.NewDevice(t, crossing.Wrap(b), device.NewLogger(device.LogLevelSilent, ""))}
	socket, err := ipc.UAPIOpen(name)
	if err != nil {
		d.wireguard.Close()
		return nil, fmt.Errorf("open control socket of %s: %w", name, err)
	}
	d.control, err = ipc.UAPIListen(name, socket)
	_ = socket.Close() // the listener has a copy of its own
	if err != nil {
		d.wireguard.Close()
		return nil, fmt.Errorf("listen on control socket of %s: %w", name, err)
	}
	go d.serve()
	return d, nil
}

// serve answers on the control socket until it is closed.
func (d *Device) serve() {
	for {
		c, err := d.control.Accept()
		if err != nil {
			// Somebody deleted the socket: nobody can configure or count this device any more.
			d.wireguard.Close()
			return
		}
		go d.wireguard.IpcHandle(c)
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
