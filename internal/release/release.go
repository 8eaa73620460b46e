// Package release says which release of the project this is.
//
// The ground check compares it with the plugin's: a plugin of another release may read another
// format of GO.
package release

// Version is set by the linker; a plain `go build` leaves it as it stands here.
var Version = "0.0.0-unreleased"
