//go:build e2e && !vm

package vmtest_test

// cluster is not built for the smoke run.
var cluster site
