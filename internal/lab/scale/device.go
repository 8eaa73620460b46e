package scale

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/host/link"
	"github.com/slurm-enclave/slurm-enclave/internal/host/machine"
	"github.com/slurm-enclave/slurm-enclave/internal/host/tunnel"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
	"github.com/slurm-enclave/slurm-enclave/internal/roster"
)

// DeviceCommand is the argument by which Run starts its own program again for a node's device:
// that program then calls Device.
const DeviceCommand = "scale-device"

// order is what a node's network is to hold; the process ends without a device when none comes.
type order struct {
	Own     enclave.Peer   `json:"own"`
	Epoch   uint32         `json:"epoch"`
	Job     enclave.JobKey `json:"job"`
	Seed    []byte         `json:"seed"`    // of the roster: these nodes keep nothing secret
	Private []byte         `json:"private"` // X25519
	Leaves  []byte         `json:"leaves"`  // as roster.Pack makes them
}

// word is what the process answers: first of Up, then of Down.
type word struct {
	Driver mesh.Driver `json:"driver"`
	Peers  uint32      `json:"peers"` // as the kernel or the userspace device says
	MS     float64     `json:"ms"`
	Error  string      `json:"error"`
}

// device is a node's network in a process of its own, as userspace WireGuard wants it: its sockets and its
// control socket are the process's.
type device struct {
	private []byte
	proc    *os.Process
	orders  *os.File
	words   *os.File
	said    *json.Decoder

	driver       mesh.Driver
	peers        uint32
	upMS, downMS float64
}

// stand starts the process, which has a network that leads nowhere and waits for its order.
func (d *device) stand() error {
	theirOrders, orders, err := os.Pipe()
	if err != nil {
		return err
	}
	words, theirWords, err := os.Pipe()
	if err != nil {
		return errors.Join(err, orders.Close(), theirOrders.Close())
	}
	d.orders, d.words, d.said = orders, words, json.NewDecoder(words)
	d.proc, err = machine.Clone([]string{DeviceCommand}, nil, []*os.File{theirOrders, theirWords}, os.Stderr)
	return errors.Join(err, theirOrders.Close(), theirWords.Close())
}

// hear reads one answer.
func (d *device) hear() (word, error) {
	var w word
	if err := d.said.Decode(&w); err != nil {
		return w, fmt.Errorf("hear of the device: %w", err)
	}
	if w.Error != "" {
		return w, errors.New(w.Error)
	}
	return w, nil
}

// up makes the device, with all peers of the roster, as a prolog does.
func (d *device) up(o order, leaves []enclave.Peer) (err error) {
	if o.Leaves, err = roster.Pack(leaves); err != nil {
		return err
	}
	o.Private = d.private
	if err = json.NewEncoder(d.orders).Encode(o); err != nil {
		return fmt.Errorf("order a device: %w", err)
	}
	w, err := d.hear()
	d.driver, d.peers, d.upMS = w.Driver, w.Peers, w.MS
	return err
}

// down lets the process take its device down, if it has one, and end.
func (d *device) down() error {
	if d.orders == nil {
		return nil
	}
	err := d.orders.Close()
	d.orders = nil
	if d.upMS > 0 {
		w, bad := d.hear()
		d.downMS, err = w.MS, errors.Join(err, bad)
	}
	if d.proc != nil {
		_, bad := d.proc.Wait()
		err = errors.Join(err, bad)
	}
	return errors.Join(err, d.words.Close())
}

// makeNetworks starts the first nodes' processes, before anything is measured.
func (r *run) makeNetworks() error {
	for _, n := range r.nodes[:r.Devices] {
		if err := n.device.stand(); err != nil {
			return errors.Join(fmt.Errorf("make a network for %s: %w", n.Name, err), r.leaveNetworks())
		}
	}
	return nil
}

func (r *run) leaveNetworks() error {
	var errs []error
	for _, n := range r.nodes[:r.Devices] {
		errs = append(errs, n.device.down())
	}
	return errors.Join(errs...)
}

// takeDown ends the devices and says how long they took.
func (r *run) takeDown() error {
	if r.Devices == 0 {
		return nil
	}
	if err := r.leaveNetworks(); err != nil {
		return err
	}
	var up, down []float64
	for _, n := range r.nodes[:r.Devices] {
		up, down = append(up, n.device.upMS), append(down, n.device.downMS)
	}
	d := r.nodes[0].device
	say(r.out, "%d nodes with a WireGuard device (%s) of %d peers: up and read back in %.0f to %.0f ms, gone in %.0f to %.0f ms",
		r.Devices, d.driver, d.peers, slices.Min(up), slices.Max(up), slices.Min(down), slices.Max(down))
	return nil
}

// Device is a node's network: it takes an order from orders, holds the device until orders ends, and takes it down.
// It runs in namespaces of its own (machine.Clone), and changes them.
func Device(ctx context.Context, orders io.Reader, words io.Writer) error {
	if err := errors.Join(machine.PrivateMounts(), machine.MountTmpfs("/run", "16m", 0o755), machine.Loopback()); err != nil {
		return err
	}
	d, answers := json.NewDecoder(orders), json.NewEncoder(words)
	var o order
	if err := d.Decode(&o); err != nil {
		if errors.Is(err, io.EOF) {
			return nil // the job was refused
		}
		return fmt.Errorf("read order: %w", err)
	}
	h, w := o.raise(ctx)
	if err := answers.Encode(w); err != nil || w.Error != "" {
		return errors.Join(err, h.Close())
	}
	if _, err := io.Copy(io.Discard, orders); err != nil {
		return err
	}
	began := time.Now()
	k := link.Kernel{}.Mesh()
	err := errors.Join(h.Close(), mesh.Down(ctx, k, o.Job.Job))
	took := milliseconds(time.Since(began))
	if err = errors.Join(err, mesh.Absent(ctx, k, o.Job.Job)); err != nil {
		return errors.Join(err, answers.Encode(word{Error: err.Error()}))
	}
	return answers.Encode(word{MS: took})
}

// held is what a keeper would hold; the kernel's own device needs nobody.
type held struct{ *tunnel.Device }

// Close ends it.
func (h held) Close() error {
	if h.Device == nil {
		return nil
	}
	return h.Device.Close()
}

// raise makes the device and says how long that took: plan, keys of all pairs, device, peers, routes, rules, all read back.
func (o order) raise(ctx context.Context) (held, word) {
	fail := func(h held, err error) (held, word) {
		return h, word{Error: fmt.Sprintf("device of %s: %s", o.Own.Node, err)}
	}
	const card = "eth0"
	prefix, err := o.Own.Addresses[0].Prefix(8)
	if err != nil {
		return fail(held{}, err)
	}
	own := netip.PrefixFrom(o.Own.Addresses[0], prefix.Bits())
	if err = errors.Join(machine.Bridge(card), machine.Addresses(card, []netip.Prefix{own})); err != nil {
		return fail(held{}, err)
	}
	began := time.Now()
	k := link.Kernel{}.Mesh()
	driver, err := mesh.Mode(ctx, k)
	if err != nil {
		return fail(held{}, err)
	}
	plan, err := o.plan(driver)
	if err != nil {
		return fail(held{}, err)
	}
	var h held
	if driver == mesh.DriverKeeper {
		if h.Device, err = tunnel.Open(plan.Link.Name, plan.Link.MTU); err != nil {
			return fail(held{}, err)
		}
	}
	if err = mesh.Up(ctx, k, plan); err != nil {
		return fail(h, err)
	}
	took := time.Since(began)
	state, err := k.WireGuard.State(ctx, plan.Link.Name)
	if err != nil {
		return fail(h, err)
	}
	return h, word{Driver: driver, Peers: uint32(len(state.Peers)), MS: milliseconds(took)}
}

// plan is the prolog's, of the fetched leaves: all the job's nodes are peers.
func (o order) plan(driver mesh.Driver) (mesh.Device, error) {
	leaves, err := roster.Unpack(o.Leaves)
	if err != nil {
		return mesh.Device{}, err
	}
	seed := enclave.NewSecret(o.Seed)
	defer seed.Wipe()
	in := mesh.Input{
		Key: o.Job, UID: 2001, Own: o.Own, PrivateKey: enclave.NewSecret(o.Private), ListenPort: o.Own.Endpoint.Port(),
		SlurmdPort: 6818, MTU: mesh.TunnelMTU(1500), Driver: driver,
	}
	for _, p := range leaves {
		if p.Node == o.Own.Node {
			continue
		}
		psk, err := roster.PairPSK(seed, o.Epoch, o.Own.Key, p.Key)
		if err != nil {
			return mesh.Device{}, err
		}
		in.Peers = append(in.Peers, mesh.Peer{Peer: p, PSK: psk})
	}
	return mesh.Plan(in)
}
