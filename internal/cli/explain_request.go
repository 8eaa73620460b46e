package cli

// The effects that several codes share, in the words that a user sees.
const (
	effectNotQueued = "The job is not queued or not changed. Nothing else happens."
	effectGate      = "The task fails before any of your code runs. The node stays in use."
	effectRequeued  = "No rank was started. The job goes back to the queue; no node is drained."
	effectDrained   = "No rank was started anywhere. This node is drained; the job goes back to the queue."
	effectAfter     = "The job is over. This node is drained, so that no other job gets what is left."
	effectCall      = "This call is refused. Neither job nor node changes by it."
	effectAlarm     = "An alarm in enclave nodes and the log. Jobs go on."
	effectStart     = "enclaved does not start, or keeps what it had read before. Jobs of enclaves wait; others run."
	effectNone      = "None on this job, which is over."
	effectAnswer    = "None: this question stays without an answer. Jobs wait or go back to the queue; no node is drained."
)

// explainRequest are the refusals that a submission earns, and the gate's.
func explainRequest() []Explanation {
	return []Explanation{
		{"E100", "The table of tenants (tenants.lua) is missing or broken on the controller.", effectNotQueued + " Jobs outside enclaves run.", "Admin: look at the log of enclaved, which writes the table from tenants.yaml."},
		{"E101", "The tenant that was named does not exist.", effectNotQueued, "Check the spelling after --enclave=, or leave the name out: it follows from the account."},
		{"E102", "The job's account belongs to no tenant.", effectNotQueued, "Use --account with an account of a tenant, or ask an admin to add this one to tenants.yaml."},
		{"E103", "The tenant exists, but the account is not entitled to it.", effectNotQueued, "Use an account of that tenant, or ask its owner for access."},
		{"E104", "Root, or a uid below UID_MIN, asked for an enclave.", effectNotQueued, "Submit as the user whose data it is."},
		{"E105", "A heterogeneous job has components in an enclave.", effectNotQueued, "Submit the components as jobs of their own."},
		{"E106", "The partitions contradict each other: a job runs in enclaves or outside.", effectNotQueued, "Name enclave partitions only, or none with --enclave."},
		{"E107", "A job in an enclave cannot leave it, share its nodes or change after its start; nor can a started job enter one.", effectNotQueued, "Cancel it and submit it anew."},
		{"E108", "The submit script of the site (enclave.lua) failed on this job.", effectNotQueued, "Admin: look at slurmctld's log."},
		{"E109", "The name after --enclave= is not spelled as a tenant's name.", effectNotQueued, "Use a-z, 0-9, _ and -, at most 63 characters."},
		{"E110", "This node has not admitted the job: no GO, or the gate was reached before the prolog was done.", effectGate, "enclave why JOBID says why there was no GO."},
		{"E111", "The admission on this node is not a plain file of root's, or not well formed; or the deny file is unreadable.", effectGate, "Admin: look at /run/slurm-enclave/gate on the node; if nobody touched it, report a bug."},
		{"E112", "The admission on this node is another job's or of an earlier boot.", effectGate, "Submit again. Admin: the prolog should have removed it, look at its log."},
		{"E113", "The admission has expired: it was not renewed in time, or the node's clock can't be read.", effectGate + " Steps that run already are not touched by the gate.", "Admin: look at enclave-keeper on the node and at the way to enclaved."},
		{"E115", "Slurm does not say which job this is, or its environment could not be prepared.", effectGate, "Admin: check that enclave.so was built for this version of Slurm."},
		{"E116", "srun --no-allocate starts a step without a job, which nobody can admit.", effectNotQueued, "Leave --no-allocate out."},
		{"E118", "The job asks for more nodes than are enrolled: it could never run.", effectNotQueued, "Ask for fewer. Administrators: enclave nodes lists them, enclave node enrol adds one."},
		{"E117", "The account has several tenants and none was chosen.", effectNotQueued, "Choose one: --enclave=TENANT."},
	}
}

// explainProtocol are the verifier's refusals of a call.
func explainProtocol() []Explanation {
	return []Explanation{
		{"E120", "The registration does not fit: another cluster, no enclave partition, no or too many nodes.", effectRequeued, "Admin: cluster and partitions in enclave.yaml must be those of slurm.conf."},
		{"E121", "The same start of the job was registered with another content.", effectRequeued, "Admin: is a second PrologSlurmctld configured, or a second cluster of this name?"},
		{"E122", "A uid below UID_MIN is registered for an enclave.", effectGate, "Submit as the user whose data it is."},
		{"E123", "A node of the job is not in inventory.yaml.", effectRequeued, "Admin: add the node there, or take it out of the partition."},
		{"E124", "A node asked for nonces faster than they expire, or renews ten times as often as it is to.", effectCall, "Nothing: it waits. If it lasts, look at the node's prolog."},
		{"E125", "A node announced itself a second time, or after barrier 1 had closed.", effectCall, "Nothing, after a network fault. Otherwise two machines use one node certificate: revoke it."},
		{"E126", "The nonce is unknown, used, expired or another node's.", effectCall, "Nothing: the prolog asks for another. If it lasts, look for a slow attestation device."},
		{"E127", "The announcement is not signed by the key that it announces.", effectCall, "Nodes and verifier must be of the same release; otherwise something alters traffic between them."},
		{"E128", "A node spoke for a job or node that is not its own.", effectCall, "Admin: the certificate's name must be the NodeName; a copied certificate must be revoked."},
		{"E129", "The call is not one that the verifier knows, or is spelled in another way than it wants.", effectCall, "Nodes and verifier must be of the same release."},
		{"E130", "The node's certificate is unknown, revoked or replaced.", effectCall + " A job on this node is refused for lack of its evidence.", "Admin: enrol the node again with enclave node enrol."},
		{"E131", "Too many calls from one address, or of one user, in a short time; or many people ask at a time.", effectCall, "Nothing: node programs wait and call again. If it lasts, find out who calls."},
		{"E132", "The caller may not do this: it is for operators, or for administrators on the controller.", "None.", "Ask an admin; Slurm's AdminLevel=Administrator is needed."},
		{"E133", "The munge credential is missing, replayed, expired or made for another question.", "None.", "Call again. If it lasts: is munged running here and on the controller, with one key, and are the clocks close?"},
		{"E135", "No such job is in the ledger, or it is not yours; or no evidence of that node is.", "None.", "Check the number. Jobs outside enclaves have no report."},
		{"E136", "The request for enrolment is not acceptable: unknown node, or evidence or request do not fit.", effectCall, "Admin: read the reason; the node must be in inventory.yaml and prove itself as for a job. If there is no certificate of its chip: enclave certs sync --pending, then ask again."},
		{"E137", "Too many enrolments are pending.", effectCall, "Approve or let expire the pending ones, then ask again."},
		{"E138", "No such enrolment is pending: it expired, or enclaved was restarted.", effectCall, "On the node again: enclave node enrol --request."},
		{"E139", "The chip is not the one that was confirmed, or it hides its identity.", effectCall, "Compare with the machine's own record. Do not approve another chip; unmask the chip id in the firmware."},
		{"E141", "An interactive job (salloc, srun) at a site whose enclave.yaml says interactive: deny.", "The job fails before any of its code runs; no node is drained.", "Submit a script with sbatch."},
		{"E142", "The receipt is asked for before it is made: the job is not over, or some nodes have not said their last word.", "None.", "Ask again later: at most limits.receipt_seconds (120) after the end of the job."},
		{"E143", "All receipts were asked for, which is for Slurm's operators.", "None.", "Export those of your own jobs: enclave receipt export JOBID."},
		{"E156", "A node that the verifier drained has not proved itself since, so it is not returned.", "None.", "On the node, as root: enclave node prove. Then again on the controller: enclave node return NODE."},
		{"E140", "The node to be returned is not drained by the verifier.", "None.", "What an admin or Slurm has drained is theirs to resume: scontrol update nodename=NODE state=resume."},
	}
}
