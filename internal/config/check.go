package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// check refuses what cannot work or would be weaker than it looks. It stops at the first fault.
func (c Config) check() error {
	_, errKey := c.Verifier.KeyDigest()
	return first(
		need(c.Cluster != "", "cluster: want ClusterName as slurm.conf spells it"),
		need(len(c.Partitions) > 0 && !slices.Contains(c.Partitions, ""), "partitions: want at least one name"),
		hostPort("verifier.address", c.Verifier.Address, true), errKey,
		need(len(c.Slurm.Slurmctld.Addresses) > 0, "slurm.slurmctld.addresses: want the controller's"),
		plain("slurm.slurmctld.addresses", c.Slurm.Slurmctld.Addresses),
		need(c.Slurm.Slurmctld.Port != 0 && c.Slurm.SlurmdPort != 0, "slurm: ports can't be 0"),
		absolute("slurm.plugstack", c.Slurm.Plugstack), c.Slurm.checkSubmitHosts(), c.Slurm.checkDriver(),
		c.Network.check(), c.Storage.check(), c.Limits.check(), c.Controller.check(),
	)
}

// checkDriver holds the way to slurmrestd to one that tells the token to nobody else. Where the driver
// is cli, what stands under rest is refused: it would look as if it were in force.
func (s Slurm) checkDriver() error {
	r := s.Rest
	if s.Driver != "rest" {
		return first(oneOf("slurm.driver", s.Driver, "cli", "rest"),
			need(r.Socket == "" && r.URL == "" && r.TokenFile == "" && !r.Plaintext, "slurm.rest: is for slurm.driver: rest"))
	}
	if r.Socket != "" {
		return first(absolute("slurm.rest.socket", r.Socket),
			need(r.URL == "", "slurm.rest: want socket or url, not both"),
			need(r.TokenFile == "" && !r.Plaintext, "slurm.rest: token_file and plaintext are for url: on a socket the user of the process counts"))
	}
	u, err := url.Parse(r.URL)
	switch {
	case r.URL == "":
		return errors.New("slurm.rest: want socket or url")
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return fmt.Errorf("slurm.rest.url: %q is no address, want https://HOST[:PORT]", r.URL)
	}
	safe := u.Scheme == "https" || u.Scheme == "http" && (loopback(u.Hostname()) || r.Plaintext)
	return first(
		need(safe, fmt.Sprintf("slurm.rest.url: %q is not https (http will do on the loopback, elsewhere with plaintext: true, which shows the token to the network)", r.URL)),
		need(r.User != "" && !strings.ContainsAny(r.User, " \t\r\n"), "slurm.rest.user: want the name that the token is for"),
		absolute("slurm.rest.token_file", r.TokenFile))
}

func (s Slurm) checkSubmitHosts() error {
	for _, h := range s.SubmitHosts {
		what := "slurm.submit_hosts: " + h.Name + ": addresses"
		if err := first(need(h.Name != "", "slurm.submit_hosts: a host without a name"),
			need(len(h.Addresses) > 0, what+": none"), plain(what, h.Addresses)); err != nil {
			return err
		}
	}
	return nil
}

func (n Network) check() error {
	errs := []error{
		need(n.Port != 0, "network.port: can't be 0"),
		oneOf("network.interactive", n.Interactive, "allow", "deny"),
	}
	for _, f := range n.Families {
		errs = append(errs, oneOf("network.families", f, Families()...))
	}
	for _, a := range n.Groups {
		errs = append(errs, need(a.IsMulticast() && !a.Is4In6() && a.Zone() == "", fmt.Sprintf("network.groups: %s is no multicast address", a)))
	}
	for _, s := range n.Services {
		for _, p := range s.Addresses {
			errs = append(errs, need(p.Bits() > 0, fmt.Sprintf("network.services: %s: %s opens the enclave to everybody", s.Name, p)))
		}
	}
	for _, s := range slices.Concat(n.Services, n.Inbound) {
		for _, p := range s.Addresses {
			errs = append(errs, need(p.IsValid() && !p.Addr().Is4In6(), fmt.Sprintf("network: service %s: address %q", s.Name, p)))
		}
		errs = append(errs,
			need(s.Name != "", "network: a service without a name"),
			oneOf("network: service "+s.Name+": proto", s.Proto, "tcp", "udp"),
			need(s.Port != 0, "network: service "+s.Name+": port can't be 0"),
			need(len(s.Addresses) > 0, "network: service "+s.Name+": no address allows nothing, leave the service out"))
	}
	return first(errs...)
}

func (s Storage) check() error {
	errs := []error{
		oneOf("storage.backend", s.Backend, "bind", "lustre"),
		oneOf("storage.isolation", s.Isolation, "node", "namespace"),
		need(!s.Namespaced() || s.Backend != "lustre", "storage.isolation: namespace needs storage.backend: bind; a mount of Lustre's own would end with the namespace, and nothing would tell what was lost"),
		s.checkBackend(), absolute("storage.public", s.Public), oneOf("storage.assurance", s.Assurance, "L1", "L2"),
		oneOf("storage.home.own", s.Home.Own, "tenant", "user", "site"), absolute("storage.home.public", s.Home.Public),
		need(s.TmpSize >= 1<<20, "storage.tmp_size: less than 1MiB"),
		oneOf("storage.transport", s.Transport, "fabric-trusted", "ssk", "wireguard"),
	}
	for _, v := range s.Visible {
		errs = append(errs, absolute("storage.visible", v))
	}
	return first(errs...)
}

// checkBackend holds each backend to its own keys: those of the other would look as if they were in
// force.
func (s Storage) checkBackend() error {
	l := s.Lustre
	if s.Backend != "lustre" {
		return first(
			need(l.Source == "" && len(l.Options) == 0 && l.Canary == enclave.FID{}, "storage.lustre: is for storage.backend: lustre"),
			need(s.Assurance != "L2", "storage.assurance: a bind mount has L1; L2 needs storage.backend: lustre"),
			need(s.Magic() != 0, "storage.fstype: "+s.FSType+" is not a type whose mount can be proved"),
			absolute("storage.source", s.Source),
			need(!beneath(s.Public, s.Source) && !beneath(s.Source, s.Public), "storage: public and source lie in each other"))
	}
	nids, fs, ok := strings.Cut(l.Source, ":/")
	for _, o := range l.Options {
		if err := checkOption(o); err != nil {
			return err
		}
	}
	return first(
		need(ok && nids != "" && fs != "" && !strings.ContainsAny(l.Source, " ,\t\n") && !strings.Contains(fs, "/"),
			fmt.Sprintf("storage.lustre.source: %q, want MGSNID[:MGSNID...]:/FSNAME", l.Source)),
		need(s.Source == "", "storage.source: is for storage.backend: bind; a node of backend lustre has no mount of the whole file system"),
		need(s.FSType == "lustre", "storage.fstype: backend lustre wants lustre"),
		need(s.Assurance != "L2" || l.Canary != enclave.FID{}, "storage.assurance: L2 is tried with storage.lustre.canary"))
}

// checkOption refuses mount options that open what the view closes.
func checkOption(o string) error {
	name, _, _ := strings.Cut(o, "=")
	open := []string{"suid", "dev", "user_fid2path", "context", "fscontext", "defcontext", "rootcontext", "remount", "bind", ""}
	return need(!slices.Contains(open, name) && !strings.ContainsAny(o, ", \t\n"), fmt.Sprintf("storage.lustre.options: %q can't be one", o))
}

// check keeps the times in the order that Slurm needs: barrier and teardown end before
// PrologEpilogTimeout (120 s), or slurmd kills the prolog and drains the node.
func (l Limits) check() error {
	return first(
		need(l.LifetimeHours >= 1 && l.LifetimeHours <= 24, "limits.lifetime_hours: want 1 to 24"),
		need(l.BarrierSeconds >= 5 && l.BarrierSeconds <= 85, "limits.barrier_seconds: want 5 to 85"),
		need(l.RenewSeconds >= 1 && l.RenewSeconds <= 3600, "limits.renew_seconds: want 1 to 3600"),
		need(l.RenewGraceSeconds >= 2*l.RenewSeconds && l.RenewGraceSeconds <= 86400,
			"limits.renew_grace_seconds: want at least two renewals, and at most 86400"),
		need(l.NonceSeconds >= 5 && l.NonceSeconds <= 60, "limits.nonce_seconds: want 5 to 60"),
		need(l.ReceiptSeconds >= 1 && l.ReceiptSeconds <= 3600, "limits.receipt_seconds: want 1 to 3600"),
	)
}

func (k KDS) check() error {
	if k.URL != "" {
		if _, err := ParseKeyServer(k.URL); err != nil {
			return fmt.Errorf("controller.kds.url: %w", err)
		}
	}
	return need(k.IntervalSeconds <= 3600, "controller.kds.interval_seconds: want at most 3600")
}

// ParseKeyServer gives the address of a key server without a slash at its end. It must be https,
// for the questions tell which chips a site has; without TLS on the loopback only.
func ParseKeyServer(s string) (string, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "", fmt.Errorf("%q is no address, want https://HOST[:PORT][/PATH]", s)
	case u.Scheme == "https" || (u.Scheme == "http" && loopback(u.Hostname())):
		return strings.TrimRight(u.String(), "/"), nil
	}
	return "", fmt.Errorf("%q is not https (http will do on the loopback only)", s)
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || (err == nil && a.IsLoopback())
}

func (c Controller) checkMetrics() error {
	if c.Metrics == "" {
		return nil
	}
	return hostPort("controller.metrics", c.Metrics, false)
}

func (c Controller) check() error {
	simulated := first(
		need(c.AllowSimulated == (c.SimulatedRoots != ""), "controller: allow_simulated and simulated_roots go together"),
		need(c.SimulatedRoots == "" || filepath.IsAbs(c.SimulatedRoots), "controller.simulated_roots: want an absolute path"),
	)
	return first(
		hostPort("controller.listen", c.Listen, false),
		absolute("controller.socket", c.Socket), absolute("controller.state", c.State), c.checkMetrics(),
		need(c.SlurmUser != "", "controller.slurm_user: can't be empty"),
		need(c.Storm.Nodes >= 2 && c.Storm.Minutes >= 1, "controller.storm: want nodes >= 2 and minutes >= 1"),
		need(c.MaxRestarts <= 100, "controller.max_restarts: want at most 100"),
		c.KDS.check(), absolute("controller.certificates", c.Certificates), absolute("controller.policies", c.Policies),
		need(c.Policy != "" && !strings.ContainsAny(c.Policy, "/."), "controller.policy: want a name without path or suffix"),
		absolute("controller.tenants", c.Tenants), absolute("controller.inventory", c.Inventory), simulated,
	)
}

// check holds each name and address to one node: two nodes with one address are one peer to WireGuard.
func (i Inventory) check() error {
	names, owners := map[string]bool{}, map[netip.Addr]string{}
	for _, n := range i.Nodes {
		if err := checkNode(n, names, owners); err != nil {
			return err
		}
	}
	return need(len(i.Nodes) > 0, "nodes: the inventory is empty")
}

func checkNode(n enclave.Node, names map[string]bool, owners map[netip.Addr]string) error {
	if n.Name == "" || names[n.Name] {
		return fmt.Errorf("nodes: name %q is empty or there twice", n.Name)
	}
	names[n.Name] = true
	if err := plain("node "+n.Name+": addresses", n.Addresses); err != nil {
		return err
	}
	for _, a := range n.Addresses {
		if owner, ok := owners[a]; ok {
			return fmt.Errorf("node %s: address %s is %s's", n.Name, a, owner)
		}
		owners[a] = n.Name
	}
	return need(slices.Contains(n.Addresses, n.Tunnel), "node "+n.Name+": tunnel is not one of its addresses")
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func need(ok bool, message string) error {
	if ok {
		return nil
	}
	return errors.New(message)
}

func oneOf(what, got string, want ...string) error {
	return need(slices.Contains(want, got), fmt.Sprintf("%s: %q, want %s", what, got, strings.Join(want, ", ")))
}

func absolute(what, path string) error {
	return need(filepath.IsAbs(path) && filepath.Clean(path) == path && path != "/", what+": want a clean absolute path")
}

func beneath(path, root string) bool { return strings.HasPrefix(path+"/", root+"/") }

func hostPort(what, s string, needHost bool) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil || port == "" || port == "0" || (needHost && host == "") {
		return fmt.Errorf("%s: %q, want HOST:PORT", what, s)
	}
	return nil
}

// plain refuses addresses that name no single remote host.
func plain(what string, list []netip.Addr) error {
	for _, a := range list {
		if !a.IsValid() || a.Zone() != "" || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a.IsLinkLocalUnicast() {
			return fmt.Errorf("%s: %q is not a plain unicast address", what, a)
		}
	}
	return nil
}
