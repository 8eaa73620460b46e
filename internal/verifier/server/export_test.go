package server

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
