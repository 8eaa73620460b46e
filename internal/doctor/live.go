package doctor

import (
	"fmt"
	"strings"
)

// watched are the settings on which rules rest and that slurmctld tells as it was told.
func watched() []string {
	return []string{
		"PrologFlags", "PrologEpilogTimeout", "PrologTimeout", "EpilogTimeout", "MessageTimeout", "BatchStartTimeout", "SchedulerParameters", "SrunPortRange",
		"JobSubmitPlugins", "AccountingStorageEnforce", "AccountingStorageType", "PrologSlurmctld", "EpilogSlurmctld", "SlurmctldPort", "SlurmdPort",
	}
}

func liveRules() []rule {
	return []rule{{name: "slurmctld runs with this slurm.conf", code: "E045", warn: true, judge: drift}}
}

// drift: what is on disk is not yet what holds. Only what both say is compared; how slurmctld
// words a default is its own affair.
func drift(s Site) verdict {
	if s.Live == nil {
		return verdict{well: "slurmctld could not be asked"}
	}
	for _, key := range watched() {
		v, ok := s.Conf.Get(key)
		live, known := s.Live[strings.ToLower(key)]
		if !ok || !known {
			continue
		}
		if !sameSetting(v.Text, live) {
			return verdict{
				bad: fmt.Sprintf("%s, slurmctld runs with %s", where(v, ok, key), live),
				fix: "scontrol reconfigure; where slurm.conf(5) says so, restart slurmctld and slurmd",
			}
		}
	}
	return verdict{well: "no difference"}
}

// sameSetting compares lists without their order, since slurmctld writes flags in its own, and
// takes words that it adds itself (associations, with limits) for no difference.
func sameSetting(file, live string) bool {
	live = strings.TrimSuffix(strings.TrimSuffix(live, " sec"), " seconds")
	have := map[string]bool{}
	for _, w := range list(live) {
		have[strings.TrimSpace(w)] = true
	}
	for _, w := range list(file) {
		if !have[strings.TrimSpace(w)] {
			return false
		}
	}
	return true
}
