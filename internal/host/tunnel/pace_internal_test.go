package tunnel

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestProcessors(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		now, most int
		load      float64
		want      int
	}{
		"little to do stays on one":          {1, 8, 0.5, 1},
		"a full one becomes two":             {1, 8, 0.9, 2},
		"what filled one does not fall back": {2, 8, 0.9, 2},
		"two full ones become four":          {2, 8, 1.9, 4},
		"never more than allowed":            {4, 6, 4, 6},
		"a node of one has one":              {1, 1, 1, 1},
		"nothing allowed is one":             {1, 0, 1, 1},
		"too many go step by step":           {8, 8, 0.1, 4},
		"and end with one":                   {2, 8, 0.1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, c.want, processors(c.now, c.most, c.load))
		})
	}
}
