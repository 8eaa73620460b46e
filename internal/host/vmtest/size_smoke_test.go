//go:build e2e && !vm

package vmtest_test

// size is how many machines there are: two for the smoke run.
const size = 2
