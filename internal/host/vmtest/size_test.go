//go:build vm

package vmtest_test

// size is how many machines there are.
const size = 3
