package snp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path"
)

// StoreNames is where a store of certificates may have the report's: PRODUCT/CHIP/TCB.der, in
// lower-case hexadecimal, by AMD's product line. A version 2 report does not name its product, so
// it has a name for each. A masked chip has none.
func (r Result) StoreNames(report []byte) ([]string, error) {
	if r.Version == 0 || len(report) != ReportSize {
		return nil, errors.New("name certificate: the report could not be read")
	}
	if r.ChipID == [64]byte{} {
		return nil, nil
	}
	file := fmt.Sprintf("%016x.der", binary.LittleEndian.Uint64(report[0x180:]))
	products := []string{r.Product}
	if r.Product == "" {
		products = []string{milan, genoa}
	}
	names := make([]string, 0, len(products))
	for _, p := range products {
		names = append(names, path.Join(p, r.ChipID.String(), file))
	}
	return names, nil
}
