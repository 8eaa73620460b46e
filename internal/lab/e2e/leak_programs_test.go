//go:build e2e

package e2e_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// run is a program in the batch step; the payload comes from a file, since words of a command line
// stand in Slurm's launch message.
func run(name, expect string, env []string, words ...string) leakAttempt {
	return leakAttempt{name: name, expect: expect, program: func(s *leakSide, id string) leakRequest {
		file := s.file(id)
		fill := strings.NewReplacer("{file}", file, "{large}", file+"-large", "{peer}", s.peerAddress, "{peername}", s.peer, "{text}", leakText(id), "{folder}", filepath.Dir(file))
		r := leakRequest{Env: env}
		for _, w := range words {
			r.Run = append(r.Run, fill.Replace(w))
		}
		return r
	}}
}

// mpi is a program of two ranks. What it says counts: MPICH 4.0.2 on UCX hangs in MPI_Finalize now and
// then, in partition cpu as well.
func mpi(name string, env []string, words ...string) leakAttempt {
	a := run("MPI: "+name, tunnelled, env, words...)
	a.says, a.installed = "16 of 16 messages are right", suite() == ""
	return a
}

func srun(words ...string) []string {
	return append([]string{"srun", "--overlap", "--ntasks-per-node=1"}, words...)
}

func ranks(mpi, program string) []string {
	return srun("--mpi="+mpi, "-N2", "-n2", leakFolder+"/"+program, "{file}")
}

// programs are what users really run.
func leakPrograms() []leakAttempt {
	ucx := []string{"OMPI_MCA_pml=ucx", "OMPI_MCA_pml_ucx_tls=any", "OMPI_MCA_pml_ucx_devices=any", "UCX_TLS=tcp,self"}
	onPeer := func(words ...string) []string {
		return srun(append([]string{"-N1", "-n1", "-w", "{peername}"}, words...)...)
	}
	iperf := run("iperf3 between the nodes", tunnelled, nil, "iperf3", "-c", "{peer}", "-p", "7720", "-F", "{large}")
	iperf.beside = []string{"iperf3", "-s", "-1", "-p", "7720"}
	ssh := run("ssh to a peer", tunnelled, nil, "ssh", "-p", "7722", "-F", "/dev/null", "-i", "{folder}/key", "-o", "StrictHostKeyChecking=no",
		"-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "{peer}", "cat", "{file}")
	ssh.encrypted, ssh.installed = true, true
	streams := []leakAttempt{
		run("srun's standard output", tunnelled, nil, onPeer("cat", "{large}")...),
		run("srun's standard input", tunnelled, nil, "sh", "-c", strings.Join(onPeer("sh", "-c", "'cat >/dev/null'"), " ")+" <{large}"),
		run("srun --pty", tunnelled, nil, "script", "-qec", strings.Join(onPeer("--pty", "cat", "{file}"), " "), "/dev/null"),
		run("sbcast", named, nil, "sbcast", "-f", "{file}", "/tmp/leak-broadcast"),
		run("srun's command line, in the launch message", named, nil, onPeer("true", "{text}")...),
	}
	if suite() != "" {
		// The hosts have one MPI, their suite's, and no ssh.
		return append([]leakAttempt{mpi("the suite's own, by srun", nil, srun("-N2", "-n2", leakFolder+"/payload", "{file}")...), iperf}, streams...)
	}
	return append([]leakAttempt{
		mpi("Open MPI, ob1 over TCP", []string{"OMPI_MCA_pml=ob1"}, ranks("pmix", "payload")...),
		mpi("Open MPI, UCX", ucx, ranks("pmix", "payload")...),
		mpi("Open MPI, mpirun", nil, "mpirun.openmpi", "-n", "2", leakFolder+"/payload", "{file}"),
		mpi("MPICH, PMI-2", nil, ranks("pmi2", "payload-mpich")...),
		mpi("MPICH, mpiexec", nil, "mpiexec.mpich", "-n", "2", "-ppn", "1", leakFolder+"/payload-mpich", "{file}"),
		iperf, ssh,
	}, streams...)
}

// setuidPrograms send as root, where they may: the fence takes it for the node's own. To peers it is in
// the tunnel all the same, and in a step they have no root's rights.
func setuidPrograms() []leakAttempt {
	setuid := []string{leakProgram + "-setuid"}
	return []leakAttempt{
		at("UDP to a peer by a setuid program of root's", tunnelled, udp("{peer}:7700").via(setuid...)).atLogin(),
		at("UDP to an unlisted host by a setuid program of root's, in a step", refusal, udp("{outsider}:7700").via(setuid...)),
		at("UDP to an unlisted host by a setuid program of root's, in a login", named, udp("{outsider}:7700").via(setuid...)).atLogin(),
	}
}

// fromTheSubmitHost are interactive jobs: what goes between a node and the submit host is Slurm's.
func fromTheSubmitHost() []leakAttempt {
	const cookie = "xauth -q add localhost:7 . 00112233445566778899aabbccddeeff; DISPLAY=localhost:7 "
	return []leakAttempt{
		{name: "srun from the submit host: its output", expect: named, interactive: "srun {options} cat {file}"},
		{name: "srun --x11 from the submit host", expect: named, installed: true, interactive: cookie + "srun --x11 {options} env " + leakAgent + "=x11:{file} " + leakProgram},
	}
}

// fromSubmitHost runs an interactive job in each partition.
func (a leakAttempt) fromSubmitHost(t *testing.T, w *wire, number int) (out [2]leakOutcome) {
	t.Helper()
	for i, plain := range []bool{false, true} {
		id, options := leakID(number, plain), "-N1 --partition=cpu-sev"
		if plain {
			options = "-N1 --partition=cpu"
		}
		putHome(t, "text-"+id, []byte(leakText(id)))
		words := strings.NewReplacer("{options}", options, "{file}", leakFolder+"/text-"+id)
		before := w.of(id, plain)
		r := on(t, "login", "alice", "sh", "-c", words.Replace(a.interactive))
		time.Sleep(100 * time.Millisecond) // what is on its way
		out[i] = leakOutcome{seen: w.of(id, plain).since(before), answer: leakAnswer{Status: r.status, Output: r.String()}}
	}
	idle(t)
	return out
}
