// Package site is the one part that calls Slurm: it drains and resumes nodes, requeues and
// cancels jobs, and writes verdicts into the accounting.
//
// The verifier decides, the site role acts. What Slurm could not be told now is kept on the
// spool and told later; a drain by somebody else is never touched. Only enclaved uses it;
// the part that must work without enclaved is internal/site/settle.
package site
