-- Written by enclaved from tenants.yaml; edits are lost.
return {
	version = 1,
	uid_min = 1000,
	interactive = true,
	nodes = 12,
	partitions = { "cpu-sev", },
	tenants = { "digimed", "genome", "open-data", "astro", },
	accounts = {
		["clinic"] = { tenants = { "digimed", "genome", }, default = "digimed", required = true },
		["digimed"] = { tenants = { "digimed", }, default = "digimed", required = false },
		["genome"] = { tenants = { "genome", }, default = "genome", required = true },
		["physics"] = { tenants = { "open-data", "astro", }, required = false },
	},
}
