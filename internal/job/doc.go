// Package job reads what Slurm says of a job to its prologs and epilogs: SLURM_* variables
// and hostlists become values of the vocabulary.
//
// Every string here is a user's or travelled with a user's request, and the reader is root.
// So each is bounded and checked, the nodelist's expansion is bounded too, and an error names
// the variable. The package is pure; prolog and epilog call it.
package job
