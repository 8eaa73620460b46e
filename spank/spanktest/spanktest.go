// Package spanktest runs the plugin's own C sources, symbolic links to spank/, under go test
// against a fake slurmstepd. It exists because cgo is not allowed in _test files and because
// nothing of the plugin may depend on a running Slurm to be tested. Nothing else imports it.
//
// The C side is one process's state, as it is in slurmstepd: tests that use it are not parallel.
package spanktest

/*
#cgo CFLAGS: -std=gnu11 -D_GNU_SOURCE -include ${SRCDIR}/fake.h
#cgo CFLAGS: -Wall -Wextra -Werror -Wformat=2 -Wshadow -Wvla
#include <stdlib.h>
#include "enclave.h"
#include "fake.h"
*/
import "C"

import (
	"strings"
	"syscall"
	"unsafe"
)

// Context is where Slurm says the plugin runs.
type Context int

// The contexts of spank.h.
const (
	Local     Context = C.S_CTX_LOCAL
	Remote    Context = C.S_CTX_REMOTE
	Allocator Context = C.S_CTX_ALLOCATOR
	Slurmd    Context = C.S_CTX_SLURMD
	JobScript Context = C.S_CTX_JOB_SCRIPT
	Unknown   Context = C.S_CTX_ERROR
)

// Host is a node and a step on it, as slurmstepd would show them to the plugin.
type Host struct {
	Context    Context
	Root       string // stands for "/": run/slurm-enclave/gate is looked for beneath it
	Marker     string
	BootID     string // the file
	DirOwner   uint32 // who must own the directories
	FileOwner  uint32 // who must own the files
	Group      uint32
	Job        uint32
	JobUnknown bool     // Slurm can't say the job's id
	Env        []string // the job's environment
	SetenvFail bool
	EnvFail    bool          // Slurm doesn't hand the environment out
	Stuck      bool          // the kernel doesn't let privileges go
	Keyring    syscall.Errno // the kernel's answer to the wish for a new session keyring
	Holdless   bool          // the kernel does not let execve be taken away
	StepID     uint32        // Slurm's; 0 is the first
	Word       string        // a word of plugstack.conf
}

// Outcome is what the hooks returned and left behind.
type Outcome struct {
	Init, PostOpt, Gate int
	Env                 []string
	Errors              string // one message per line
	Dropped             bool   // setuid programs give nothing any more
	Left                bool   // the step has a session keyring of its own
	Held                bool   // the step starts no program any more
}

// Install makes h the state of the fake. Hooks called afterwards see it.
func (h Host) Install() {
	C.fake_reset(C.int(h.Context))
	for which, path := range map[C.int]string{
		C.FAKE_ROOT: h.Root, C.FAKE_MARKER: h.Marker, C.FAKE_BOOT_ID: h.BootID,
	} {
		withString(path, func(s *C.char) { C.fake_set_path(which, s) })
	}
	C.fake_set_owner(C.uid_t(h.DirOwner), C.uid_t(h.FileOwner), C.gid_t(h.Group))
	C.fake_set_job(C.uint32_t(h.Job), flag(!h.JobUnknown))
	C.fake_set_stuck(flag(h.Stuck), C.int(h.Keyring), flag(h.Holdless))
	C.fake_set_step(C.uint32_t(h.StepID))
	C.fake_set_failing(flag(h.SetenvFail), flag(h.EnvFail))
	for _, e := range h.Env {
		withString(e, func(s *C.char) { C.fake_env_add(s) })
	}
}

// Step runs init, init_post_opt and the gate in slurmstepd's order; between is called before
// the gate, for what may change meanwhile.
func (h Host) Step(between func()) Outcome {
	h.Install()
	o := Outcome{Init: Init(), PostOpt: PostOpt(h.Word)}
	if between != nil {
		between()
	}
	o.Gate = Gate()
	o.Env, o.Errors = Environment(), Errors()
	o.Dropped, o.Left, o.Held = C.fake_dropped() != 0, C.fake_left() != 0, C.fake_held() != 0
	return o
}

// Init calls slurm_spank_init with up to two words of plugstack.conf.
func Init(args ...string) int {
	var words [2]string
	copy(words[:], args)
	rc := 0
	withString(words[0], func(first *C.char) {
		withString(words[1], func(second *C.char) { rc = int(C.fake_init(first, second)) })
	})
	return rc
}

// PostOpt calls slurm_spank_init_post_opt with a word of plugstack.conf.
func PostOpt(word string) int {
	rc := 0
	withString(word, func(s *C.char) { rc = int(C.fake_post_opt(s)) })
	return rc
}

// Gate calls slurm_spank_task_init_privileged.
func Gate() int { return int(C.fake_gate()) }

// Programs are the ways in which a child of this process could start a program, held or not. The
// child asks the kernel itself.
func Programs(held bool) []string { return strings.Fields(C.GoString(C.fake_try_programs(flag(held)))) }

// Errors are the messages so far.
func Errors() string { return C.GoString(C.fake_errors()) }

// Environment is the job's environment as it stands.
func Environment() []string {
	var env []string
	for i := range int(C.fake_env_count()) {
		env = append(env, C.GoString(C.fake_env_at(C.int(i))))
	}
	return env
}

// Usage is the help text of the registered option.
func Usage() string { return C.GoString(C.fake_option_usage()) }

// Option calls the option's callback; a nil value is no value.
func Option(value *string, remote bool) int {
	if value == nil {
		return int(C.fake_option_call(nil, flag(remote)))
	}
	rc := 0
	withString(*value, func(s *C.char) { rc = int(C.fake_option_call(s, flag(remote))) })
	return rc
}

// ClientEnv reads the process's environment as C sees it; Go's copy doesn't follow setenv.
func ClientEnv(name string) (string, bool) {
	var value *C.char
	withString(name, func(s *C.char) { value = C.getenv(s) })
	if value == nil {
		return "", false
	}
	return C.GoString(value), true
}

// Go is a parsed GO file.
type Go struct {
	Job, Restart uint32
	Boot         string
	Expires      uint64
	Env          []string
}

// ParseGo gives the bytes to enclave_go_parse in a block of exactly their size.
func ParseGo(b []byte) (Go, bool) {
	var g C.struct_enclave_go
	p := C.CBytes(b)
	defer C.free(p)
	if C.enclave_go_parse((*C.char)(p), C.size_t(len(b)), &g) != 0 {
		return Go{}, false
	}
	out := Go{
		Job: uint32(g.job), Restart: uint32(g.restart),
		Boot: C.GoString(&g.boot[0]), Expires: uint64(g.expires),
	}
	for i := range int(g.pairs) {
		out.Env = append(out.Env, C.GoString(&g.pair[i].name[0])+"="+C.GoString(&g.pair[i].value[0]))
	}
	return out, true
}

// Deny is a parsed DENY file.
type Deny struct {
	Job          uint32
	Code, Reason string
}

// ParseDeny gives the bytes to enclave_deny_parse.
func ParseDeny(b []byte) (Deny, bool) {
	var d C.struct_enclave_deny
	p := C.CBytes(b)
	defer C.free(p)
	if C.enclave_deny_parse((*C.char)(p), C.size_t(len(b)), &d) != 0 {
		return Deny{}, false
	}
	return Deny{Job: uint32(d.job), Code: C.GoString(&d.code[0]), Reason: C.GoString(&d.reason[0])}, true
}

// View is a parsed VIEW file.
type View struct {
	Job   uint32
	Boot  string
	Space uint64
}

// ParseView gives the bytes to enclave_view_parse.
func ParseView(b []byte) (View, bool) {
	var v C.struct_enclave_view
	p := C.CBytes(b)
	defer C.free(p)
	if C.enclave_view_parse((*C.char)(p), C.size_t(len(b)), &v) != 0 {
		return View{}, false
	}
	return View{Job: uint32(v.job), Boot: C.GoString(&v.boot[0]), Space: uint64(v.space)}, true
}

// TenantValid is the plugin's reading of a tenant's name.
func TenantValid(name string) bool {
	valid := false
	withString(name, func(s *C.char) { valid = bool(C.enclave_tenant_valid(s)) })
	return valid
}

func withString(s string, f func(*C.char)) {
	c := C.CString(strings.ReplaceAll(s, "\x00", ""))
	defer C.free(unsafe.Pointer(c))
	f(c)
}

func flag(b bool) C.int {
	if b {
		return 1
	}
	return 0
}
