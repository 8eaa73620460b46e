package server

import "net/http"

// Answering answers every call with an error, through all that stands around a handler.
func (s *Server) Answering(err error) http.Handler {
	return s.recovering(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, nil, err) }))
}

// Occupy takes all turns for reading evidence, as a crowd of nodes does, until the function that it
// gives is called.
func (s *Server) Occupy() (leave func()) {
	for range cap(s.reading) {
		s.reading <- struct{}{}
	}
	return func() {
		for range cap(s.reading) {
			<-s.reading
		}
	}
}
