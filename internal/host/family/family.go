// Package family asks the kernel which kinds of sockets it opens beside IP.
//
// The fence sees IP packets, and whose socket sends them. AF_SMC, AF_RDS, AF_TIPC, AF_VSOCK and AF_PPPOX
// (frames, which no right is asked for) pass by it, and AF_RXRPC sends from a UDP socket of the
// kernel's own, which has no user. So the prolog
// asks before a job starts; what follows is the door's decision. Nothing is loaded or unloaded
// on purpose, but asking does what a user's call would do: the kernel loads the module of a
// family unless modprobe.d forbids it.
package family

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// kinds are the families by the names of their modules, each with a type that it has.
var kinds = []struct {
	name                   string
	domain, kind, protocol int
}{
	{"smc", unix.AF_SMC, unix.SOCK_STREAM, 0},
	{"rds", unix.AF_RDS, unix.SOCK_SEQPACKET, 0},
	{"tipc", unix.AF_TIPC, unix.SOCK_SEQPACKET, 0},
	{"vsock", unix.AF_VSOCK, unix.SOCK_STREAM, 0},
	{"rxrpc", unix.AF_RXRPC, unix.SOCK_DGRAM, unix.AF_INET},
	{"pppox", unix.AF_PPPOX, unix.SOCK_STREAM, 0},
}

// Open opens a socket of each of the families and gives those of them that this kernel opens, by
// the names of their modules. The sockets are closed again. Not being able to tell is an error.
func Open(families []string) ([]string, error) {
	var open []string
	for _, name := range families {
		is, err := opens(name)
		if err != nil {
			return nil, fmt.Errorf("open socket of family %s: %w", name, err)
		}
		if is {
			open = append(open, name)
		}
	}
	return open, nil
}

var errUnknown = errors.New("unknown family")

func opens(name string) (bool, error) {
	for _, k := range kinds {
		if k.name != name {
			continue
		}
		fd, err := unix.Socket(k.domain, k.kind|unix.SOCK_CLOEXEC, k.protocol)
		if err == nil {
			return true, unix.Close(fd)
		}
		return verdict(err)
	}
	return false, errUnknown
}

// verdict reads the error of socket(2). A family that lacks the type only is there: another type
// would open. What a security module or a filter denies to root here is denied to the job, which
// slurmd starts as it has started us.
func verdict(err error) (bool, error) {
	switch {
	case errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return false, nil
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.ESOCKTNOSUPPORT):
		return true, nil
	default:
		return false, err
	}
}
