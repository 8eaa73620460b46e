package lab

import (
	"fmt"
	"os"
	"strconv"

	"github.com/slurm-enclave/slurm-enclave/internal/host/machine"
)

// Command is the argument vector that runs argv on a host as a user of that host, from
// outside the lab.
func (s State) Command(host, user string, argv []string) ([]string, error) {
	h, err := s.host(host)
	if err != nil {
		return nil, err
	}
	// --root, too: the lab may have been brought up inside a chroot.
	cmd := []string{
		"nsenter", "--target", strconv.Itoa(s.Supervisor), "--mount", "--pid", "--net", "--root", "--wd", "--",
		"nsenter", "--target", strconv.Itoa(h.PID), "--mount", "--pid", "--net", "--ipc", "--uts", "--root", "--wd", "--",
	}
	if user == "" || user == "root" {
		return append(cmd, argv...), nil
	}
	id, home, err := account(user)
	if err != nil {
		return nil, err
	}
	return append(append(cmd,
		"setpriv", "--reuid="+id, "--regid="+id, "--init-groups", "--reset-env", "--",
		"env", "--chdir="+home, "HOME="+home, "USER="+user, "LOGNAME="+user), argv...), nil
}

func account(user string) (id, home string, err error) {
	if user == enclaveUser {
		return strconv.Itoa(enclaveUID), "/", nil
	}
	for _, u := range Users() {
		if u.Name == user {
			return strconv.FormatUint(uint64(u.UID), 10), "/home/" + u.Name, nil
		}
	}
	return "", "", fmt.Errorf("find user %q: the lab has alice, bob, carol, enclave and root", user)
}

// Exec replaces the calling process by argv on a host of the lab; it returns on failure only.
func Exec(host, user string, argv []string) error {
	s, err := Load()
	if err != nil {
		return err
	}
	cmd, err := s.Command(host, user, argv)
	if err != nil {
		return err
	}
	return machine.Replace(cmd, environment())
}

func environment() []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/root"}
	if term, ok := os.LookupEnv("TERM"); ok {
		env = append(env, "TERM="+term)
	}
	return env
}
