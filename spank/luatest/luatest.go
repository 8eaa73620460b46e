// Package luatest holds the tests of etc/enclave.lua: enclave_test.lua under a Lua interpreter
// with a fake slurmctld, and this package's Go test that starts it on a table written by
// internal/tenants. There is nothing else in it.
package luatest
