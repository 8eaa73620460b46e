// Package enclave is the project's vocabulary: the values that rooms hand to each other.
//
// It holds no behaviour beyond checking and printing a value, imports the standard library
// only, and is imported by everyone.
//
// Words of attestation are those of RFC 9334 (attester, evidence, endorsement, appraisal,
// attestation result), words of scheduling are Slurm's (job, step, partition, prolog).
package enclave
