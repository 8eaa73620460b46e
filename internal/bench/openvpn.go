package bench

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"strings"
	"time"
)

// VPN is an OpenVPN between two hosts as the UC Davis guide has it: AES-128-CBC and SHA256 over
// UDP, in userspace. Its peers know each other by fingerprint, so that it needs no authority.
type VPN struct {
	Ends    [2]End       // the first one listens
	Network netip.Prefix // of the tunnel; the ends are its first two addresses
	Port    uint16
}

// End is one host, as root.
type End struct {
	Name    string
	Shell   Shell
	Address netip.Addr // on the network below
}

// vpnDirectory holds configuration, log and process id, at each end.
const vpnDirectory = "/run/enclave-bench"

// Missing says why there can be no OpenVPN here, "" when there can.
func (v VPN) Missing(ctx context.Context) string {
	for _, e := range v.Ends {
		if !has(ctx, e.Shell, "openvpn") {
			return "it is not on " + e.Name + ": package openvpn"
		}
	}
	return ""
}

// Up starts both ends and waits until each has the other. What it started ends with Down.
func (v VPN) Up(ctx context.Context) error {
	configs, err := v.Configs()
	if err != nil {
		return fmt.Errorf("configure OpenVPN: %w", err)
	}
	for i, e := range v.Ends {
		const store = `umask 077 && rm -rf "$0" && mkdir "$0" && cat >"$0/openvpn.conf" && exec openvpn --config "$0/openvpn.conf" --daemon --writepid "$0/openvpn.pid" --log "$0/openvpn.log"`
		if _, err := e.Shell.Run(ctx, configs[i], "sh", "-c", store, vpnDirectory); err != nil {
			return fmt.Errorf("start OpenVPN: %w", err)
		}
	}
	for _, e := range v.Ends {
		const wait = `for try in $(seq 100); do grep -q "Initialization Sequence Completed" "$0/openvpn.log" && exit 0; sleep 0.2; done; tail -n 3 "$0/openvpn.log" >&2; exit 1`
		if _, err := e.Shell.Run(ctx, "", "sh", "-c", wait, vpnDirectory); err != nil {
			return fmt.Errorf("wait for OpenVPN: %w", err)
		}
	}
	return nil
}

// Down ends what Up started, and returns when it is gone.
func (v VPN) Down(ctx context.Context) error {
	const end = `[ ! -e "$0" ] && exit 0
pid=$(cat "$0/openvpn.pid" 2>/dev/null) && kill "$pid" 2>/dev/null
for try in $(seq 50); do
	[ -z "$pid" ] || [ ! -e "/proc/$pid" ] && rm -r "$0" && exit 0
	sleep 0.1
done
echo "process $pid stays" >&2
exit 1`
	var errs error
	for _, e := range v.Ends {
		if _, err := e.Shell.Run(ctx, "", "sh", "-c", end, vpnDirectory); err != nil {
			errs = errors.Join(errs, fmt.Errorf("end OpenVPN: %w", err))
		}
	}
	return errs
}

// Configs are the two ends' configuration files, keys and certificates in them.
func (v VPN) Configs() ([2]string, error) {
	var (
		certificates, keys, prints [2]string
		out                        [2]string
	)
	for i := range v.Ends {
		var err error
		if certificates[i], keys[i], prints[i], err = identity(fmt.Sprintf("end%d", i+1)); err != nil {
			return out, err
		}
	}
	inner := [2]netip.Addr{v.Network.Addr().Next(), v.Network.Addr().Next().Next()}
	for i := range v.Ends {
		other := 1 - i
		lines := []string{
			"dev tun", "topology subnet", "proto udp4", "disable-dco", "verb 3", "persist-key", "persist-tun",
			fmt.Sprintf("ifconfig %s 255.255.255.0", inner[i]),
			fmt.Sprintf("local %s", v.Ends[i].Address), fmt.Sprintf("port %d", v.Port), fmt.Sprintf("remote %s %d", v.Ends[other].Address, v.Port),
			"data-ciphers AES-128-CBC", "data-ciphers-fallback AES-128-CBC", "cipher AES-128-CBC", "auth SHA256",
			"keepalive 10 60",
			[2]string{"tls-server\ndh none", "tls-client"}[i],
			"<cert>\n" + certificates[i] + "</cert>", "<key>\n" + keys[i] + "</key>",
			"<peer-fingerprint>\n" + prints[other] + "\n</peer-fingerprint>",
		}
		out[i] = strings.Join(lines, "\n") + "\n"
	}
	return out, nil
}

// identity is a certificate signed by its own key, that key, and its fingerprint in OpenVPN's form.
func identity(name string) (certificate, private, fingerprint string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", "", err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(48 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return "", "", "", err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", "", "", err
	}
	sum := sha256.Sum256(der)
	var octets []string
	for _, b := range sum {
		octets = append(octets, fmt.Sprintf("%02X", b))
	}
	text := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	return text("CERTIFICATE", der), text("PRIVATE KEY", secret), strings.Join(octets, ":"), nil
}
