package route

import "strings"

// Program is the submit client.
type Program int

// The clients, numbered as in spank/abi.h.
const (
	Sbatch Program = 1
	Salloc Program = 2
	Srun   Program = 3
)

// Asked is what a client's own command line says that matters here.
type Asked struct {
	Enclave    bool   // --enclave was given
	Tenant     string // its value
	Partition  bool   // -p was given
	Account    string // the value of -A
	NoAllocate bool   // srun -Z
}

// valued are the long options that take the next word as their value when they hold no "=";
// all Slurm clients' together, since no name means two things.
var valued = words(`account acctg-freq array batch bb bbf bcast-exclude begin chdir
	cluster-constraint clusters comment constraint container core-spec cores-per-socket cpu-bind
	cpu-freq cpus-per-gpu cpus-per-task deadline debugger-test delay-boot dependency
	distribution epilog error exclude export export-file extra-node-info gid gpu-bind gpu-freq
	gpus gpus-per-node gpus-per-socket gpus-per-task gres gres-flags het-group hint input
	job-name jobid kill-command licenses mail-type mail-user max-exit-timeout max-launch-time
	mcs-label mem mem-bind mem-per-cpu mem-per-gpu mincpus mloader-exit-timeout mpi msg-timeout
	network nodefile nodelist nodes ntasks ntasks-per-core ntasks-per-gpu ntasks-per-node
	ntasks-per-socket ntasks-per-tres open-mode output partition pack-group power prefer
	priority profile prolog qos relative reservation signal slurmd-debug sockets-per-node
	switches task-epilog task-prolog thread-spec threads threads-per-core time time-min tmp
	tres-bind tres-per-task uid wait-all-nodes wckey wrap`)

// plain are other long options whose names the abbreviations of ours must not swallow.
var plain = words(`bell bcast compress contiguous disable-status enclave exact exclusive
	get-user-env help hold ignore-pbs immediate interactive kill-on-bad-exit kill-on-invalid-dep
	label multi-prog nice no-allocate no-bell no-kill no-requeue no-shell overcommit overlap
	oversubscribe parsable preserve-env propagate pty quiet quit-on-interrupt reboot requeue
	resv-ports send-libs share spread-job test-only unbuffered usage use-min-nodes verbose
	version wait x11`)

// shortValued are the short options that take a value, per client.
var shortValued = map[Program]string{
	Sbatch: "aAbBcCdDeFGiJLmMnNopqStwx",
	Salloc: "AbBcCdDFGJLmMnNpqStwx",
	Srun:   "aAbBcCdDeFGiJLmMnNopqrStTwWx",
}

func words(s string) map[string]bool {
	m := make(map[string]bool)
	for w := range strings.FieldsSeq(s) {
		m[w] = true
	}
	return m
}

// Scan reads a client's argument vector up to the script or program, as getopt does. What it
// can't know, other plugins' options with a value apart, ends the scan early: an option is
// missed then, never invented, and slurmctld sees all of them.
func Scan(program Program, argv []string) Asked {
	var a Asked
	for i := 1; i < len(argv); i++ {
		word := argv[i]
		if word == "--" || len(word) < 2 || word[0] != '-' {
			break
		}
		next, more := "", i+1 < len(argv)
		if more {
			next = argv[i+1]
		}
		if a.word(program, word, next) && more {
			i++
		}
	}
	return a
}

// word takes one option word, and says whether it took the next word as well.
func (a *Asked) word(program Program, word, next string) bool {
	if strings.HasPrefix(word, "--") {
		return a.long(word[2:], next)
	}
	for i := 1; i < len(word); i++ {
		if strings.IndexByte(shortValued[program], word[i]) < 0 {
			a.NoAllocate = a.NoAllocate || program == Srun && word[i] == 'Z'
			if word[i] == 'I' || word[i] == 'k' {
				return false // their value, where they have one, is the rest of the word
			}
			continue
		}
		value, took := word[i+1:], false
		if value == "" {
			value, took = next, true
		}
		switch word[i] {
		case 'p':
			a.Partition = true
		case 'A':
			a.Account = value
		}
		return took
	}
	return false
}

func (a *Asked) long(word, next string) bool {
	name, value, inline := strings.Cut(word, "=")
	name = full(name)
	took := valued[name] && !inline
	if took {
		value = next
	}
	switch name {
	case "enclave": // its value is optional, so it is never the next word
		a.Enclave, a.Tenant = true, value
	case "partition":
		a.Partition = true
	case "account":
		a.Account = value
	case "no-allocate":
		a.NoAllocate = true
	}
	return took
}

// full expands an abbreviation that means one option only, as getopt_long does.
func full(name string) string {
	if valued[name] || plain[name] {
		return name
	}
	found := ""
	for _, set := range []map[string]bool{valued, plain} {
		for long := range set {
			if strings.HasPrefix(long, name) {
				if found != "" {
					return name
				}
				found = long
			}
		}
	}
	if found == "" {
		return name
	}
	return found
}
