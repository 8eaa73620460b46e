package vmtest

// Accelerator is QEMU's way to run a machine's processors.
func Accelerator() string { return "tcg" }
