package cli

// explainService are E5xx: verifier, site role, policy.
func explainService() []Explanation {
	return []Explanation{
		{"E500", "The verifier does not answer.", effectAnswer, "Admin: is enclaved running, and verifier.address in enclave.yaml reachable from here?"},
		{"E501", "Another node of the job was refused.", effectRequeued, "Nothing for you to do; enclave why JOBID names the other node."},
		{"E502", "The verifier does not know this start of the job: it was not registered, or enclaved was restarted meanwhile.", effectRequeued, "Nothing, once. If it lasts: is PrologSlurmctld the enclave's wrapper, and does it reach enclaved?"},
		{"E503", "The job ended while its nodes were proving themselves.", effectNone, "Nothing."},
		{"E504", "Not all nodes were ready by the deadline.", effectRequeued, "If it lasts: enclave report JOBID shows which phase takes long."},
		{"E505", "The job was refused too often.", "The job ends and is not put back any more.", "enclave why JOBID names the last reason. Submit again when it is mended."},
		{"E506", "GO could not be recorded on the controller's disk.", effectRequeued, "Admin: is /var/lib/slurm-enclave full or read-only?"},
		{"E507", "The ledger cannot be used.", "Jobs go back to the queue until it can; no node is drained.", "Admin: is /var/lib/slurm-enclave full, read-only, or damaged?"},
		{"E508", "The policy was changed while the job started.", effectRequeued, "Nothing."},
		{"E509", "enclaved is stopping.", effectRequeued, "Nothing: the job starts when it is back."},
		{"E510", "A node of the job never spoke to the verifier.", effectRequeued, "At the third time an alarm names the node: are its certificate, the way to port 6830 and its prolog in order?"},
		{"E511", "A node could not be drained or resumed.", "A broken node may get jobs; each is refused again. No job runs on it.", "Admin: drain it by hand. Is the user enclave Administrator in sacctmgr, and slurmctld there?"},
		{"E512", "A node never spoke to the verifier in three jobs in a row.", "Its jobs go back to the queue each time; it is not drained.", "Admin: look at its prolog's log, its certificate and the way to port 6830; drain it meanwhile."},
		{"E513", "The verdict is not in Slurm's accounting.", effectAlarm, "The ledger has it. See E523 and E524 in the reason."},
		{"E514", "The tenant's policy cannot be used.", effectRequeued, "Admin: correct the file in policy.d that the reason names."},
		{"E515", "Slurm did not requeue or end a job that it was told to.", "A refused job may stay where it is; the gate keeps its tasks from running.", "Admin: scontrol requeue or scancel it by hand; see the reason."},
		{"E516", "enclaved ended between registration and decision of the job.", effectRequeued, "Nothing, once. If it lasts, look why enclaved ends."},
		{"E517", "The verifier could not answer because of a fault of its own.", effectAnswer, "Admin: look at the log of enclaved."},
		{"E518", "Something answered that does not speak as the verifier does.", effectAnswer, "Are enclaved and this program of the same release?"},
		{"E519", "No munge credential could be made here.", "None: this question stays without an answer.", "Is munged running on this machine?"},
		{"E520", "enclaved is away, and the job was put back three times already.", "The job ends and is not put back any more.", "Admin: start enclaved. Then submit again."},
		{"E521", "An interactive job was to be put back; Slurm can do that with batch jobs only.", "salloc or srun ends.", "Start it again."},
		{"E522", "A job with --no-requeue was to be put back.", "The job ends.", "Submit it again, without --no-requeue if it may be put back."},
		{"E523", "AdminComment can no longer be written without spoiling it: sacctmgr changes capitals and quotes in what other tools wrote there, or the next start has begun.", effectAlarm + " The verdict is in the ledger: enclave report.", "Nothing. If it lasts: are slurmctld's answers slow when jobs start?"},
		{"E524", "Slurm does not answer, or did not do what it was told.", "Drains, requeues and accounting are late; they are tried again from the spool.", "Admin: look at slurmctld and slurmdbd, and at the rights of the user enclave in sacctmgr."},
		{"E525", "A receipt could not be made or stored.", "None: the job is over, and its record in the ledger is whole. The receipt is tried again every few seconds.", "Admin: is /var/lib/slurm-enclave full or read-only? The alarm names the cause."},
		{"E528", "A revocation list in the certificate store was replaced by one that is broken, older, or of no root that is trusted here.", effectAlarm + " The last good one stays in force.", "Admin: enclave certs show names what is wrong; enclave certs sync fetches it again."},
		{"E529", "A certificate or revocation list in the store is of no use, has ended, or ends within 30 days.", effectAlarm + " Evidence that needs it is refused once it has ended.", "Admin: enclave certs show lists them; enclave certs sync fetches new ones."},
		{"E531", "A node of the running job did not prove itself again in time: its keeper died, or it does not reach the verifier.", "The job is ended. No node is drained: from here nobody knows why.", "On the node: the lines of enclave-keeper in /var/log/slurm-enclave.log; can it reach port 6830 of the verifier?"},
		{"E532", "An operator revoked a node of the job.", "The job is ended and not put back: its ranks had begun. The node is drained and not enrolled.", "Submit the job again. Admin: when the node is trusted again, enrol it and run enclave node return."},
		{"E533", "slurmrestd does not answer as it should: it is away, lets enclaved not in, or offers no version of its API that can be used.", "Drains, requeues and accounting are late; they are tried again from the spool. Jobs wait.", "Admin: is slurmrestd there, as the same user as enclaved on a socket, or with a valid token? slurm.driver: cli in enclave.yaml does without it."},
		{"E530", "The same check failed on all nodes of a job, or on many nodes within minutes.", "Taken for a fault of the policy: no node is drained for it, those of the window are resumed, jobs wait.", "Admin: correct the policy (a new firmware or image everywhere?), then the jobs start by themselves."},
	}
}
