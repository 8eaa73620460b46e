package server

import (
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// failed passes on an error that is no refusal: the caller is told to look into the log. That a caller
// hung up is none.
func (s *Server) failed(r *http.Request, err error) {
	if _, told := enclave.AsRefusal(err); told || r.Context().Err() != nil {
		return
	}
	s.Failed(r.Method+" "+r.URL.Path, err)
}

// recovering ends a call that panics, and that call only. net/http would do that, too, among the words
// about strangers' connections that are counted and not read.
func (s *Server) recovering(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if err, is := v.(error); !is || !errors.Is(err, http.ErrAbortHandler) {
				s.counters.add("panic")
				s.Failed(r.Method+" "+r.URL.Path, fmt.Errorf("panic: %v\n%s", v, debug.Stack()))
			}
			panic(http.ErrAbortHandler) // the connection is closed, and nothing is printed
		}()
		h.ServeHTTP(w, r)
	})
}
