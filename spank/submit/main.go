// Package main is libenclave-submit.so, the Go half of the SPANK plugin. enclave.so loads it in
// sbatch, salloc and srun when a submission may be meant for an enclave, and asks it one
// question. It reads one file, the tenant table of the login node, speaks to nobody and prints
// nothing: what the user should read goes back to the plugin. No slurmd and no slurmstepd ever
// loads it.
package main

/*
#cgo CFLAGS: -I${SRCDIR}/..
#include "abi.h"
*/
import "C"

import (
	"os"
	"strings"
	"unsafe"

	"github.com/slurm-enclave/slurm-enclave/internal/tenants"
	"github.com/slurm-enclave/slurm-enclave/spank/submit/route"
)

func main() {}

// enclave_submit_route answers abi.h's question. It never lets a panic out: the client would
// die of a comfort.
//
//export enclave_submit_route
func enclave_submit_route(s *C.struct_enclave_submission, text *C.char, size C.size_t) (rc C.int) {
	defer func() {
		if recover() != nil {
			rc = C.ENCLAVE_ROUTE_NONE
		}
	}()
	out := unsafe.Slice((*byte)(unsafe.Pointer(text)), int(size))
	partition, err := route.Decide(submission(s), table(C.GoString(s.tenants)))
	switch {
	case err != nil:
		answer(out, route.Message(err))
		return C.ENCLAVE_ROUTE_REFUSED
	case partition != "":
		answer(out, partition)
		return C.ENCLAVE_ROUTE_SET
	default:
		return C.ENCLAVE_ROUTE_NONE
	}
}

// submission copies the plugin's values; no pointer of C's is kept.
func submission(s *C.struct_enclave_submission) route.Submission {
	line := string(C.GoBytes(unsafe.Pointer(s.cmdline), C.int(s.cmdline_len)))
	v := route.Submission{
		Program:   route.Program(s.program),
		UID:       uint32(s.uid),
		Argv:      strings.Split(strings.TrimSuffix(line, "\x00"), "\x00"),
		Partition: s.partition_env != nil,
		InJob:     s.job_env != nil,
		Fallback:  C.GoString(s.partition),
	}
	if s.account_env != nil {
		v.Account = C.GoString(s.account_env)
	}
	if s.option != nil {
		option := C.GoString(s.option)
		if option == "(null)" {
			option = ""
		}
		v.Option = &option
	}
	return v
}

// table reads the tenants; a missing or broken table is none, since slurmctld has its own.
func table(path string) *tenants.Table {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	t, err := tenants.Load(f)
	if err != nil {
		return nil
	}
	return t
}

// answer writes s and a NUL, cut to what fits.
func answer(out []byte, s string) {
	if len(out) == 0 {
		return
	}
	n := copy(out[:len(out)-1], s)
	out[n] = 0
}
