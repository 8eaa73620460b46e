package bench

import (
	_ "embed"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// measure is what a job runs; it begins with assignments that script adds.
//
//go:embed measure.sh
var measure string

// route is by which network a job's programs talk.
type route struct {
	network netip.Prefix   // the only network that they may use; zero: whatever the nodes' names lead to
	without []netip.Prefix // what MPI must not use otherwise
}

// script is the batch script of one run.
func (b *Bench) script(r route) string {
	lines := []string{
		"#!/bin/sh",
		"program=" + quote(b.program),
		"seconds=" + strconv.Itoa(b.Seconds),
		"network=",
		// InfiniBand does not exist in an enclave: all rows are TCP.
		"export OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,tcp UCX_TLS=tcp,self",
	}
	if b.Crowded {
		lines = append(lines, "export OMPI_MCA_mpi_yield_when_idle=1")
	}
	if r.network.IsValid() {
		lines = append(lines, "network="+r.network.String(), "export OMPI_MCA_btl_tcp_if_include="+r.network.String())
	} else if len(r.without) > 0 {
		without := []string{"127.0.0.0/8"}
		for _, p := range r.without {
			without = append(without, p.String())
		}
		lines = append(lines, "export OMPI_MCA_btl_tcp_if_exclude="+strings.Join(without, ","))
	}
	return strings.Join(lines, "\n") + "\n" + measure
}

// quote writes a word for a POSIX shell.
func quote(word string) string {
	return fmt.Sprintf("'%s'", strings.ReplaceAll(word, "'", `'\''`))
}
