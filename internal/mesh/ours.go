package mesh

import "strings"

// Ours says whether a rule is one of a mesh's, whatever the job: its mark is in our range.
func (r Rule) Ours() bool { return r.Mark&^uint32(jobBits) == markBase }

// IsDevice says whether an interface's name is one of a mesh's.
func IsDevice(name string) bool {
	digits, ok := strings.CutPrefix(name, "enc")
	return ok && digits != "" && strings.Trim(digits, "0123456789") == ""
}

// IsTable says whether a routing table is one of a mesh's.
func IsTable(table uint32) bool { return table&^uint32(jobBits) == tableBase }
