package cli

// explainNode are E2xx: ground, evidence, keeper.
func explainNode() []Explanation {
	return []Explanation{
		{"E201", "The node said itself that it cannot take part, without a code of its own.", effectDrained, "Read the drain reason and the prolog's log on the node."},
		{"E202", "What an earlier job left on the node could not be cleaned.", effectDrained, "The reason names what is left: clean it up by hand, or reboot the node."},
		{"E203", "Processes of other users are on the node and do not end.", effectDrained, "End them, or reboot. Put admins into the allow list."},
		{"E204", "The user's subordinate uids (/etc/subuid) cannot be read.", effectDrained, "Correct /etc/subuid on the node."},
		{"E205", "The node has no usable certificate of its own.", effectDrained, "Enrol it: on the node enclave node enrol --request, then on the controller enclave node enrol NODE."},
		{"E206", "Another job is still on the node, probably suspended.", effectRequeued, "End or resume the other job. Use PreemptMode=OFF for the partition."},
		{"E207", "The marker of an enclave node could have been put there by somebody else.", effectDrained, "Make /etc/slurm-enclave and what is in it root's, writable by root alone."},
		{"E208", "The node's kernel opens sockets that pass by tunnel and fence (SMC, RDS, TIPC, VSOCK).", effectDrained, "Install etc/modprobe.d/slurm-enclave.conf and reboot the node, or list the family in network.families."},
		{"E209", "A stage of the prolog failed without a code of its own, or not in time.", effectDrained, "Read the drain reason and the prolog's log on the node."},
		{"E210", "slurmd does not load the gate: plugstack.conf and what it includes have no active line for enclave.so.", effectDrained, "Add the line: required enclave.so, and restart slurmd."},
		{"E211", "slurmd loads the gate as optional: tasks would start without it when it cannot be loaded.", effectDrained, "Write required before enclave.so."},
		{"E212", "Others than root may write plugstack.conf, a file that it includes, or a directory on the way.", effectDrained, "chown root and chmod go-w what the reason names."},
		{"E213", "plugstack.conf or slurm.conf cannot be read as slurmd reads it.", effectDrained, "Correct what the reason names: a line over 4094 bytes, a NUL, brackets in an include, a circle of includes."},
		{"E214", "The plugin is not where plugstack.conf says, or its place is not certain.", effectDrained, "Write the plugin's absolute path into plugstack.conf, or PluginDir into slurm.conf."},
		{"E215", "Others than root may write the plugin or a directory on the way to it.", effectDrained, "chown root and chmod go-w what the reason names."},
		{"E216", "The plugin is of another release than the programs.", effectDrained, "Install plugin and programs of one release, then restart slurmd."},
		{"E220", "The report is not genuine: form, signature, chain or revocation does not verify.", effectDrained, "enclave evidence verify on the node's report names the check. If it says that there is no certificate (new firmware has a new one): enclave certs sync on the controller. Only then suspect the machine."},
		{"E221", "The node took a nonce and sent no acceptable evidence by the deadline.", effectDrained, "Look at the prolog's log: a slow firmware mailbox, or a broken network to enclaved."},
		{"E222", "The node cannot make a report: no SEV-SNP guest, or no device for it.", effectDrained, "As root on the node, enclave ok names the one thing to fix: SEV-SNP guest, CONFIG_TSM_REPORTS, sev-guest, /sys/kernel/config."},
		{"E223", "Two nodes of the job announced the same tunnel key.", effectDrained, "The node was cloned with its memory, or something between altered the call. Start it anew."},
		{"E224", "The node renewed with other keys than it started with.", "The job is ended. This node is drained.", "Look at enclave-keeper on the node; if nobody touched it, suspect the machine."},
		{"E225", "The device for reports is of another kind than SEV-SNP.", effectDrained, "The guest was booted as another kind of confidential VM: enclave ok says which. Correct its definition."},
		{"E226", "The firmware did not make a report in time.", effectDrained, "Other guests of the host may throttle the firmware. Try again; otherwise look at the host."},
		{"E227", "The device for reports gave an error.", effectDrained, "Read the drain reason; run enclave ok as root on the node; look at the guest's kernel log."},
		{"E228", "The report is not about this job, node, nonce and these keys.", effectDrained, "Same release and same cluster name on node and controller? Otherwise somebody replays reports: suspect the machine."},
		{"E229", "The node booted something that is not among the policy's reference values.", effectDrained, "After an intended update: enclave policy learn --node on a node that you trust, decide on covers, and add the value. Otherwise reinstall the node."},
		{"E230", "The reference value does not cover the root file system, and the policy demands it.", effectDrained, "Boot the node with dm-verity from a measured command line, or set weak_boot: accept; reports then say WEAK."},
		{"E231", "The guest allows debugging: the host can read its memory.", effectDrained, "Remove the debug bit from the guest policy in the VM's definition."},
		{"E232", "The guest allows migration by an agent, which gets its keys.", effectDrained, "Remove the migration agent bit from the guest policy."},
		{"E233", "The report was made at another privilege level (VMPL) than the policy demands.", effectDrained, "Is there an SVSM or a paravisor? The policy must name its level."},
		{"E234", "Simultaneous multithreading is on or allowed, against the policy.", effectDrained, "Switch it off on the host and in the guest policy, or allow it in the policy."},
		{"E235", "Firmware or microcode is older than the policy's minimum.", effectDrained, "Update the host's firmware. For capacity tonight, an admin may lower tcb_minimum; that is a decision about risk."},
		{"E236", "The host runs newer firmware than it has committed: it could go back.", effectDrained, "Commit the firmware on the host (snphost commit), or opt out in the policy."},
		{"E237", "The chip is not the one that was enrolled for this node; or, where the host masks CHIP_ID, the guest was started anew since it was enrolled.", effectDrained, "The node moved to another machine, or is known by its REPORT_ID only and was restarted: enrol it again (enclave node enrol). If neither is so, suspect the machine."},
		{"E238", "The evidence comes from a lab's test hierarchy.", effectDrained, "A production cluster never allows this. In a lab: allow_simulated: true."},
		{"E239", "A check of the policy failed that has no code of its own.", effectDrained, "Read the drain reason: it names the check."},
		{"E260", "The report is of version 2: it names no processor and no check for aliased memory.", effectDrained, "Update the host's SEV firmware (1.55 and later make version 3), or set version_2_reports: accept in the policy."},
		{"E261", "The report is signed by a cloud's key (VLEK), not by the chip's own.", effectDrained, "Ask the provider for VCEK evidence, or set vlek: accept in the policy: then the provider vouches for the machine."},
		{"E262", "The guest policy allows or leaves open what the site's policy does not.", effectDrained, "Correct the guest policy in the VM's definition; the reason names the bits. Keys guest_policy and cxl of the policy."},
		{"E263", "The machine does not have a property that the policy asks for (platform).", effectDrained, "Switch it on in the host's firmware set-up, or take it out of platform in the policy."},
		{"E264", "HOST_DATA is not one of those that the policy lists.", effectDrained, "Was the guest launched with another configuration? Add its value to host_data only if you know what it stands for."},
		{"E265", "The guest was launched on firmware that is older than the policy's minimum; the host was updated since.", effectDrained, "Start the guest anew on this host. launch_tcb: ignore in the policy takes it as it is."},
		{"E266", "The guest's ID block is missing or signed by a key that the policy does not list.", effectDrained, "Launch the guest with its ID block, or correct id_keys in the policy."},
		{"E267", "The author key of the guest's ID block is missing or not one that the policy lists.", effectDrained, "Launch the guest with its ID block and author key, or correct author_keys in the policy."},
		{"E268", "The image's security version (GUEST_SVN of the ID block) is lower than the policy's minimum.", effectDrained, "Boot the current image, or lower minimum_guest_svn."},
		{"E269", "The firmware did not look for aliased memory: a manipulated memory module could break the guest's integrity (BadRAM, AMD-SB-3015).", effectDrained, "Update the host's BIOS and SEV firmware as AMD-SB-3015 says. alias_check: ignore in the policy takes it as it is."},
		{"E270", "A mitigation that the policy asks for was not in force when the guest was launched, or is not now.", effectDrained, "Update host and firmware as the bulletin says and start the guest anew, or correct mitigations in the policy."},
		{"E240", "enclave-keeper did not start on the node, or did not become ready.", effectDrained, "Look at the node's log; is /usr/libexec/slurm-enclave/enclave-keeper of this release?"},
		{"E241", "enclave-keeper did not end with its job.", effectAfter, "End it by its process id, then run enclave host check."},
		{"E242", "enclave-keeper found no verifier that proved the node again before its time was over.", "The node closes gate and tunnel. The job is ended (E531). No node is drained.", "Was enclaved away for longer than limits.renew_grace_seconds? The node's log has the last error."},
		{"E243", "enclave-keeper heard of a later roster and could not believe it, or not put it in place.", "The node closes gate and tunnel. The job is ended.", "The node's log names the cause; if it is the signature, suspect the network between node and verifier."},
		{"E245", "After the job the node does not equal its recorded closed state.", effectAfter, "On the node: enclave host check names each difference. Clean up, or reboot it."},
		{"E249", "The node's journal of the job could not be written.", effectDrained, "Check space and permissions of /run/slurm-enclave on the node."},
		{"E250", "The addresses that the node announced are not those of its inventory entry.", effectDrained, "Correct the node's entry in inventory.yaml, or its network."},
		{"E251", "The key that the node announced for sealing cannot be used.", effectDrained, "Same release on node and controller? Otherwise suspect the machine."},
		{"E252", "The node is not enrolled, or its enrolment was taken back.", effectDrained, "Enrol it: enclave node enrol."},
	}
}

// explainStorage are E3xx.
func explainStorage() []Explanation {
	return []Explanation{
		{"E300", "The storage part of enclave.yaml cannot be used on this node.", effectDrained, "Correct storage: in enclave.yaml; the reason names the key."},
		{"E301", "The directory that holds the whole file system is not closed to users.", effectDrained, "chown root:root and chmod 0700 the directory; enclave host close does it at boot."},
		{"E302", "The file system is not mounted where it should be, or is of another type.", effectDrained, "Mount it there once, below the closed directory."},
		{"E303", "The tenant's directory does not exist.", effectGate, "Admin: create the directory that tenants.yaml names."},
		{"E304", "The public path is missing, not empty, or something is mounted there.", effectDrained, "Create the empty directory; unmount what is on it."},
		{"E305", "A network file system that visible: does not list can be seen on the node.", effectDrained, "Unmount it or move it below the closed directory, or list it under visible:, which tells users that it is shared."},
		{"E306", "The same file system is mounted a second time at another place.", effectDrained, "Unmount the second one."},
		{"E307", "Owner or mode of the tenant's directory, or of the way to it, are not as they must be.", effectGate, "Admin: correct owner and mode; nobody else may write the way to it."},
		{"E308", "The kernel shows another mount than the one that was asked for.", effectDrained, "Look at /proc/self/mountinfo on the node; something else mounts there."},
		{"E309", "The kernel refused a mount.", effectDrained, "Read the drain reason and the node's kernel log."},
		{"E310", "The file system could not make the job's data durable when it was unmounted.", effectAfter + " Data of the job may be lost.", "Look at the file system's servers."},
		{"E311", "Something keeps the job's view busy, so that it cannot be unmounted.", effectAfter, "End the processes that the reason names, then enclave host check."},
		{"E312", "The file system does not answer, so that the view cannot be unmounted.", effectAfter, "Look at the file system's servers, then enclave host check."},
		{"E313", "The job's view is still mounted in another mount namespace.", effectAfter, "End these processes, then enclave host check."},
		{"E314", "Something mounts on the job's view again and again while it is taken down.", effectAfter, "Find out who mounts there (an automounter?) and end it; then enclave host check."},
		{"E315", "The list of directories in which users can leave files is missing on the node.", effectAfter, "enclave host close makes it, at boot; after an upgrade run it while the node is idle."},
		{"E316", "Files or mounts that the job left on the node's own disks could not be removed.", effectAfter, "Delete what the reason names, then enclave host check; or reboot."},
		{"E317", "The kernel's keyrings of the job's user could not be emptied.", effectAfter, "Reboot the node."},
	}
}

// explainNetwork are E4xx.
func explainNetwork() []Explanation {
	return []Explanation{
		{"E400", "The roster and this node's part in it make no mesh.", effectDrained, "Same release on nodes and controller? Otherwise report a bug with the reason."},
		{"E401", "An address cannot be in a mesh, or two nodes claim it.", effectDrained, "Correct the addresses of these nodes in inventory.yaml."},
		{"E402", "The userspace WireGuard device was not made.", effectDrained, "Load the kernel's WireGuard module, or look at enclave-keeper's log and /dev/net/tun."},
		{"E403", "The kernel does not hold the links, routes or rules that were put in.", effectDrained, "Does another program (NetworkManager, a firewall manager) own the node's routes? Exclude enc*."},
		{"E404", "A part of the mesh is still there after the job.", effectAfter, "ip link delete the interface that the reason names, then enclave host check."},
		{"E410", "The job's data or the policy's list of services make no fence.", effectDrained, "Correct network.services in enclave.yaml; the reason names the entry."},
		{"E411", "The kernel does not hold the packet filter that was put in.", effectDrained, "Does another program flush nftables? It must leave tables enclave_* alone."},
		{"E412", "The job's packet filter is still there after the job.", effectAfter, "nft delete table inet enclave_JOBID, then enclave host check."},
		{"E420", "A neighbour does not answer through the tunnel.", "No rank was started. The job goes back to the queue; the verifier decides whether a node is at fault.", "Does the network between the two nodes carry UDP port 51820, and packets of the tunnel's size?"},
		{"E426", "The packet filter around a running job was deleted or changed on a node.", effectLost, "Find what flushes nftables there (systemctl reload nftables with flush ruleset in /etc/nftables.conf, a configuration manager) and have it spare tables enclave_*; docs/guide/install.md, Firewalls."},
		{"E427", "Policy rules or routes of a running job were deleted or changed on a node.", effectLost, "Find what owns the node's rules: systemd-networkd deletes foreign ones at its start unless told otherwise; docs/guide/install.md, Firewalls."},
		{"E428", "The interface of a running job was deleted or changed on a node.", effectLost, "Find what manages the node's interfaces, and have it leave enc* alone."},
		{"E429", "WireGuard on a node holds a peer that is not on the running job's roster, or another port or mark.", effectLost, "Only root can do that with wg(8). If nobody did, suspect the machine."},
		{"E430", "A policy rule of the site's stands before the enclave's: packets of the job to a peer would not take the tunnel.", "Before the start: the node is drained and the job goes back to the queue. In a running job: it is ended and the node is drained.", "ip rule: give the site's rule a priority above 9999, or let it spare the peers' addresses."},
		{"E431", "A node could not read back fence and mesh of a running job for half a minute.", "The node closes gate and tunnel. The job is ended. No node is drained.", "The node's log has the kernel's error; is memory for network buffers exhausted?"},
	}
}

// effectLost is that of a node that is no longer what the job was let in for.
const effectLost = "The node unlinks GO, closes its fence and its tunnel within a second, and the job is ended. That node is drained."
