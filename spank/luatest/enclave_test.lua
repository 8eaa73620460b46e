-- lua enclave_test.lua ENCLAVE.LUA TENANTS.LUA SCRATCH
--
-- A fake slurmctld asks enclave.lua about jobs. Each case names what must come out.

local script, good_table, scratch = arg[1], arg[2], arg[3]

local NO_VAL, NO_VAL16 = 4294967294, 65534
local said, logged

slurm = {
	SUCCESS = 0, ERROR = -1, ESLURM_ACCESS_DENIED = 2002, ESLURM_INVALID_ACCOUNT = 2045, ESLURM_INVALID_NODE_COUNT = 2006, NO_VAL = NO_VAL, NO_VAL16 = NO_VAL16,
	log_user = function(...) said[#said + 1] = string.format(...) end,
	log_error = function(...) logged[#logged + 1] = string.format(...) end,
}

local cases, failures = 0, 0

local function fail(name, ...)
	failures = failures + 1
	print("FAIL " .. name .. ": " .. string.format(...))
end

local function load_enclave(path)
	local enclave = dofile(script)
	enclave.table_path = path
	return enclave
end

local function write(text)
	local f = assert(io.open(scratch, "wb"))
	f:write(text)
	f:close()
	return scratch
end

local function read(path)
	local f = assert(io.open(path, "rb"))
	local text = f:read("*a")
	f:close()
	return text
end

-- What slurmctld hands over when the user says nothing.
local function job(fields)
	local d = {
		user_id = 2001, het_job_offset = NO_VAL, shared = NO_VAL16, requeue = NO_VAL16,
		min_nodes = NO_VAL, max_nodes = NO_VAL, script = "#!/bin/sh\n",
	}
	for k, v in pairs(fields) do
		d[k] = v ~= "nil" and v or nil
	end
	return d
end

local function opt(value)
	return { [0] = "OTHER=1", [1] = "_SLURM_SPANK_OPTION_enclave_enclave=" .. value }
end

local function unchanged(before, after)
	for _, pair in ipairs({ { before, after }, { after, before } }) do
		for k, v in pairs(pair[1]) do
			if pair[2][k] ~= v then
				return false, k
			end
		end
	end
	return true
end

-- run(name, call, want): want.code is a refusal, want.set the fields a yes must have set, and a
-- yes without want.set must have changed nothing.
local function run(name, d, call, want)
	cases = cases + 1
	said, logged = {}, {}
	local before = {}
	for k, v in pairs(d) do
		before[k] = v
	end
	local ok, rc = pcall(call)
	if not ok then
		return fail(name, "raised %s", tostring(rc))
	end
	if type(rc) ~= "number" then
		return fail(name, "answered %s, which Slurm takes for yes", tostring(rc))
	end
	local text = table.concat(said, "\n")
	if want.code then
		if rc == 0 or not text:find("^enclave: " .. want.code .. ": ") then
			fail(name, "want %s, got %d %s %s", want.code, rc, text, table.concat(logged, " "))
		end
		local word = ({ E102 = 2045, E103 = 2045, E117 = 2045, E118 = 2006 })[want.code] or 2002
		if rc ~= word then
			fail(name, "Slurm's own word is %d, want %d", rc, word)
		end
		if text:find("[%c\127-\255]") then
			fail(name, "says bytes that are no text: %q", text)
		end
		return
	end
	if rc ~= 0 then
		return fail(name, "want yes, got %d %s %s", rc, text, table.concat(logged, " "))
	end
	if (want.says or "") ~= "" and not text:find(want.says, 1, true) or not want.says and text ~= "" then
		fail(name, "says %q", text)
	end
	if not want.set then
		local same, field = unchanged(before, d)
		if not same then
			fail(name, "changed %s", field)
		end
	end
	for k, v in pairs(want.set or {}) do
		if d[k] ~= v then
			fail(name, "%s is %s, want %s", k, tostring(d[k]), tostring(v))
		end
	end
end

local enclave = load_enclave(good_table)

local function submit(name, fields, want, with, partitions)
	local d = job(fields)
	run("submit: " .. name, d, function() return (with or enclave).submit(d, partitions or {}, d.user_id) end, want)
end

local pinned = { partition = "cpu-sev", shared = 0, admin_comment = 'enclave={"v":"pending"}', requeue = 1 }

submit("an ordinary job is untouched", { account = "chemistry", partition = "cpu" }, {})
submit("a job without anything is untouched", {}, {})
submit("a root job elsewhere is untouched", { user_id = 0, partition = "cpu" }, {})
submit("another plugin's option is untouched", { spank_job_env = { [0] = "_SLURM_SPANK_OPTION_enclave_enclaves=x" } }, {})
submit("a het component elsewhere is untouched", { het_job_offset = 1, partition = "cpu" }, {})
submit("the partition", { account = "digimed", partition = "cpu-sev" }, { set = pinned })
submit("the option without a value", { account = "digimed", spank_job_env = opt("") }, { set = pinned })
submit("the option as slurmctld gets it without a value", { account = "digimed", spank_job_env = opt("(null)") }, { set = pinned })
submit("the option with its tenant", { account = "clinic", spank_job_env = opt("genome") }, { set = pinned })
submit("the default account counts", { default_account = "digimed", spank_job_env = opt("") }, { set = pinned })
submit("the account beats the default account", { account = "chemistry", default_account = "digimed", spank_job_env = opt("") }, { code = "E102" })
submit("an account that requires it is routed", { account = "genome" }, { set = pinned })
submit("it is routed away from another partition, and told so", { account = "genome", partition = "cpu" }, { set = pinned, says = "requires an enclave" })
submit("a required default account is routed", { default_account = "genome" }, { set = pinned })
submit("a required account in capitals is routed", { account = "GENOME" }, { set = pinned })
submit("an admin's comment stays", { account = "digimed", partition = "cpu-sev", admin_comment = "seen" }, { set = { admin_comment = "seen", shared = 0 } })
do -- SLURM_GET_USER_ENV=1 in a job's environment has slurmd run the user's profile
	local function asked(value, fields)
		local d = { account = "digimed", partition = "cpu-sev", environment = { SLURM_GET_USER_ENV = value, PATH = "/bin" } }
		for k, v in pairs(fields or {}) do
			d[k] = v
		end
		return d
	end
	local function after(name, d, value, says)
		submit(name, d, { set = {}, says = says })
		cases = cases + 1
		if d.environment.SLURM_GET_USER_ENV ~= value or d.environment.PATH ~= "/bin" then
			fail(name, "SLURM_GET_USER_ENV is %s", tostring(d.environment.SLURM_GET_USER_ENV))
		end
	end
	after("a login environment is not fetched by slurmd", asked("1"), "enclave", "no login profile")
	after("a routed job's neither", asked("1", { account = "genome", partition = "nil" }), "enclave", "no login profile")
	after("a job that does not ask for it is not told", asked(nil), nil)
	after("another value is Slurm's to judge", asked("0"), "0")
	after("a job elsewhere has it as ever", asked("1", { account = "chemistry", partition = "cpu" }), "1")
end
submit("a user's --no-requeue stays", { account = "digimed", partition = "cpu-sev", requeue = 0 }, { set = { requeue = 0 } })
submit("an allocation is not made requeueable", { account = "digimed", partition = "cpu-sev", script = "nil" }, { set = { requeue = NO_VAL16, shared = 0 }, says = "in the clear" })
submit("--oversubscribe is overruled", { account = "digimed", partition = "cpu-sev", shared = 1 }, { set = { shared = 0 } })
submit("--exclusive=user is overruled", { account = "digimed", partition = "cpu-sev", shared = 2 }, { set = { shared = 0 } })
submit("a choice where there is no default", { account = "physics", spank_job_env = opt("astro") }, { set = pinned })

submit("an unknown tenant", { account = "digimed", spank_job_env = opt("nobody") }, { code = "E101" })
submit("no account", { spank_job_env = opt("") }, { code = "E102" })
submit("an empty account", { account = "", partition = "cpu-sev" }, { code = "E102" })
submit("an account without tenant", { account = "chemistry", partition = "cpu-sev" }, { code = "E102" })
submit("an account with bytes for a terminal", { account = "\27[31m\n%s", partition = "cpu-sev" }, { code = "E102" })
submit("an account that is not entitled", { account = "digimed", spank_job_env = opt("genome") }, { code = "E103" })
submit("root", { user_id = 0, account = "digimed", partition = "cpu-sev" }, { code = "E104" })
submit("a system user", { user_id = 999, account = "digimed", partition = "cpu-sev" }, { code = "E104" })
submit("a user that Slurm does not tell", { user_id = "nil", account = "digimed", partition = "cpu-sev" }, { code = "E104" })
submit("the first het component", { het_job_offset = 0, account = "digimed", partition = "cpu-sev" }, { code = "E105" })
submit("a later het component", { het_job_offset = 3, account = "genome" }, { code = "E105" })
submit("a mixed partition list", { account = "digimed", partition = "cpu,cpu-sev" }, { code = "E106" })
submit("a mixed list with blanks", { account = "digimed", partition = "cpu-sev, cpu" }, { code = "E106" })
submit("a mixed list of a required account", { account = "genome", partition = "cpu,cpu-sev" }, { code = "E106" })
submit("the option against another partition", { account = "digimed", partition = "cpu", spank_job_env = opt("") }, { code = "E106" })
submit("a tenant that is none", { account = "digimed", spank_job_env = opt("../x") }, { code = "E109" })
submit("a tenant with a format in it", { account = "digimed", spank_job_env = opt("%s%n") }, { code = "E109" })
submit("a tenant of 64 letters", { account = "digimed", spank_job_env = opt(("a"):rep(64)) }, { code = "E109" })
submit("several tenants without a choice", { account = "physics", partition = "cpu-sev" }, { code = "E117" })

-- Slurm's second argument: the partitions that the user may use.
local function default(name)
	local list = { cpu = { name = "cpu", flag_default = 0 }, ["cpu-sev"] = { name = "cpu-sev", flag_default = 0 } }
	if name then
		list[name] = { name = name, flag_default = 1 }
	end
	return list
end
submit("a default that is an enclave is one", { account = "digimed" }, { set = pinned }, nil, default("cpu-sev"))
submit("so is one for an empty name", { account = "digimed", partition = "" }, { set = pinned }, nil, default("cpu-sev"))
submit("its account has to have a tenant", { account = "chemistry" }, { code = "E102" }, nil, default("cpu-sev"))
submit("it has no root", { user_id = 0, account = "digimed" }, { code = "E104" }, nil, default("cpu-sev"))
submit("it has no het component", { account = "digimed", het_job_offset = 1 }, { code = "E105" }, nil, default("cpu-sev"))
submit("it is of a size", { account = "digimed", min_nodes = 13 }, { code = "E118" }, nil, default("cpu-sev"))
submit("another default is no enclave", { account = "digimed" }, {}, nil, default("cpu"))
submit("another default is no choice against --enclave", { account = "digimed", spank_job_env = opt("") }, { set = pinned }, nil, default("cpu"))
submit("a default is no choice against another partition", { account = "digimed", partition = "cpu" }, {}, nil, default("cpu-sev"))
submit("a site without a default", { account = "digimed" }, {}, nil, default(nil))
submit("partitions that Slurm does not tell", { account = "digimed" }, {}, nil, "none")

submit("as many nodes as there are", { account = "digimed", partition = "cpu-sev", min_nodes = 12 }, { set = pinned })
submit("more nodes than there are", { account = "digimed", partition = "cpu-sev", min_nodes = 13 }, { code = "E118" })
submit("any number elsewhere", { account = "chemistry", partition = "cpu", min_nodes = 13 }, {})
local uncounted = load_enclave(write((read(good_table):gsub("\tnodes = 12,\n", ""))))
submit("any number while nobody has counted", { account = "digimed", partition = "cpu-sev", min_nodes = 13 }, { set = pinned }, uncounted)

local batch_only = load_enclave(write((read(good_table):gsub("interactive = true", "interactive = false"))))
submit("no allocation where the site wants none", { account = "digimed", partition = "cpu-sev", script = "nil" }, { code = "E141" }, batch_only)
submit("nor one that is routed", { account = "genome", script = "" }, { code = "E141" }, batch_only)
submit("a script is let in there", { account = "digimed", partition = "cpu-sev" }, { set = pinned }, batch_only)
submit("nor one in a default", { account = "digimed", script = "nil" }, { code = "E141" }, batch_only, default("cpu-sev"))
submit("an allocation elsewhere is untouched", { account = "chemistry", partition = "cpu", script = "nil" }, {}, batch_only)

-- Modify.

local NOTHING = { user_id = NO_VAL, het_job_offset = NO_VAL, shared = NO_VAL16, requeue = NO_VAL16, min_nodes = NO_VAL, max_nodes = NO_VAL }

local function modify(name, record, change, want, with)
	local d, r = {}, { partition = "cpu", account = "digimed", user_id = 2001, job_state = 0, het_job_id = 0 }
	for k, v in pairs(NOTHING) do
		d[k] = v
	end
	for k, v in pairs(change) do
		d[k] = v
	end
	for k, v in pairs(record) do
		r[k] = v
	end
	run("modify: " .. name, d, function() return (with or enclave).modify(d, r, {}, 0) end, want)
end

local inside = { partition = "cpu-sev" }
-- The record has what was asked for, sbatch -N2-4, not what was given. Slurm takes the same number again for
-- an order to give the rest back.
local running = { partition = "cpu-sev", job_state = 1, min_nodes = 2, max_nodes = 4, req_nodes = "n[1-2]", exc_nodes = "n9" }
local flagged = { partition = "cpu-sev", job_state = 1 + 0x4000, min_nodes = 2, max_nodes = 4, req_nodes = "n[1-2]", exc_nodes = "n9" } -- configuring

modify("an ordinary job may do as it likes", {}, { partition = "other", req_nodes = "n1", shared = 1 }, {})
modify("a time limit is nobody's business", running, { time_limit = 5 }, {})
modify("a time limit of a pending job", inside, { time_limit = 5 }, {})
modify("the same partition again", inside, { partition = "cpu-sev" }, {})
modify("the same partition of a running job", running, { partition = "cpu-sev" }, {})
modify("a pending job may ask for other nodes", inside, { req_nodes = "n1", min_nodes = 4 }, {})
modify("a pending job may change to an entitled account", inside, { account = "clinic" }, {})
modify("leaving the enclave", inside, { partition = "cpu" }, { code = "E107" })
modify("leaving it by a list", inside, { partition = "cpu-sev,cpu" }, { code = "E107" })
modify("leaving it by an empty partition", inside, { partition = "" }, { code = "E107" })
modify("leaving it while it runs", running, { partition = "cpu" }, { code = "E107" })
modify("sharing its nodes", inside, { shared = 1 }, { code = "E107" })
modify("an account without tenant", inside, { account = "chemistry" }, { code = "E102" })
for _, change in ipairs({
	{ req_nodes = "n1" }, { exc_nodes = "n1" }, { features = "x" }, { min_nodes = 1 }, { max_nodes = 9 },
	{ min_nodes = 2 }, { max_nodes = 4 }, { req_nodes = "n[1-2]" }, { req_nodes = "" }, { exc_nodes = "n9" },
	{ account = "clinic" }, { shared = 0 },
}) do
	local field, value = next(change)
	modify("after its start, " .. field, running, { [field] = value }, { code = "E107" })
	modify("while it is being set up, " .. field, flagged, { [field] = value }, { code = "E107" })
end
modify("entering sets nothing that only an administrator may change", {}, { partition = "cpu-sev" }, {})
modify("entering with another account", { account = "chemistry" }, { account = "clinic", partition = "cpu-sev" }, {})
modify("entering with a list", {}, { partition = "cpu,cpu-sev" }, { code = "E106" })
modify("entering while it runs", { job_state = 1 }, { partition = "cpu-sev" }, { code = "E107" })
modify("entering without a tenant", { account = "chemistry" }, { partition = "cpu-sev" }, { code = "E102" })
modify("entering as root", { user_id = 0 }, { partition = "cpu-sev" }, { code = "E104" })
modify("entering as a het component", { het_job_id = 7 }, { partition = "cpu-sev" }, { code = "E105" })
modify("taking an account that requires an enclave", {}, { account = "Genome" }, { code = "E107" })
modify("a job whose state is not told counts as started", { partition = "cpu-sev", job_state = "?" }, { req_nodes = "n1" }, { code = "E107" })

-- A table that can't be used.

local text = read(good_table)
for name, broken in pairs({
	["an empty table"] = "",
	["half a table"] = text:sub(1, math.floor(#text / 2)),
	["a table that would call"] = text:gsub("uid_min = 1000", "uid_min = error('x')"),
	["a table that calls and comes out right"] = text:gsub("uid_min = 1000", 'uid_min = #("x"):rep(1000)'),
	["a table that would loop"] = "while true do end return {}",
	["a table in byte code"] = string.dump(function() return {} end),
	["a table of another version"] = text:gsub("version = 1", "version = 2"),
	["a table without partitions"] = text:gsub('partitions = { "cpu%-sev", }', "partitions = { }"),
	["a table with uid_min 0"] = text:gsub("uid_min = 1000", "uid_min = 0"),
	["a table with a tenant out of nowhere"] = text:gsub('"astro", },\n\taccounts', "},\n\taccounts"),
	["a table whose default is beyond the account"] = text:gsub('default = "genome"', 'default = "astro"'),
	["a table that forgets who may wait"] = text:gsub("interactive = true", "nothing = true"),
	["a table that forgets required"] = text:gsub("required = true", "nothing = true"),
	["a table with a global in it"] = text:gsub("uid_min = 1000", "uid_min = os.time"),
	["a table beyond all measure"] = text .. ("-"):rep(1024 * 1024),
}) do
	assert(broken ~= text, name)
	local fresh = load_enclave(write(broken))
	submit(name .. " leaves ordinary jobs alone", { account = "chemistry", partition = "cpu" }, {}, fresh)
	submit(name .. " refuses the partition", { account = "digimed", partition = "cpu-sev" }, { code = "E100" }, fresh)
	submit(name .. " refuses the option", { account = "digimed", spank_job_env = opt("") }, { code = "E100" }, fresh)
	modify(name .. " lets no one in", {}, { partition = "cpu-sev" }, { code = "E100" }, fresh)
	modify(name .. " lets no one out", inside, { partition = "cpu" }, { code = "E107" }, fresh)
	modify(name .. " leaves ordinary changes alone", {}, { time_limit = 5 }, {}, fresh)
end
submit("a missing table refuses its jobs only", { partition = "cpu-sev" }, { code = "E100" }, load_enclave(scratch .. ".none"))
submit("a missing table leaves others alone", {}, {}, load_enclave(scratch .. ".none"))

local later = load_enclave(good_table)
submit("a good table first", { account = "genome" }, { set = pinned }, later)
later.table_path = scratch .. ".none"
submit("what the last good table required is remembered", { account = "genome" }, { code = "E100" }, later)
submit("and the others still go their way", { account = "chemistry" }, {}, later)

-- A table that has not changed is not read twice: slurmctld waits, and asks once for each element of an array.

do
	local key = setfenv and "loadstring" or "load"
	local real, parsed = _G[key], 0
	_G[key] = function(...)
		parsed = parsed + 1
		return real(...)
	end
	local function count(name, want)
		cases = cases + 1
		if parsed ~= want then
			fail(name, "the table was read %d times, want %d", parsed, want)
		end
	end
	local steady = load_enclave(write(text))
	for _ = 1, 50 do
		modify("one of many", {}, { time_limit = 5 }, {}, steady)
		submit("one of many", { account = "digimed", partition = "cpu-sev" }, { set = pinned }, steady)
	end
	count("a hundred questions", 1)
	write((text:gsub("nodes = 12", "nodes = 14")))
	submit("a new table counts at once", { account = "digimed", partition = "cpu-sev", min_nodes = 14 }, { set = pinned }, steady)
	count("a new table", 2)
	write("return {")
	submit("a broken one, too", { account = "digimed", partition = "cpu-sev" }, { code = "E100" }, steady)
	submit("for as long as it is there", { account = "digimed", partition = "cpu-sev" }, { code = "E100" }, steady)
	write(text)
	submit("and the old one again", { account = "digimed", partition = "cpu-sev", min_nodes = 14 }, { code = "E118" }, steady)
	_G[key] = real
end

-- An error of our own.

local function broken_job(fields)
	return setmetatable({}, { __index = function(_, k)
		if k == "admin_comment" or k == fields.bad then
			error("no such field")
		end
		return job(fields)[k]
	end, __newindex = function() end })
end
local d = broken_job({ account = "digimed", partition = "cpu-sev" })
run("an error refuses a job that is meant for an enclave", {}, function() return enclave.submit(d, {}, 0) end, { code = "E108" })
d = broken_job({ account = "digimed", partition = "cpu", bad = "default_account" })
run("an ordinary job does not meet it", {}, function() return enclave.submit(d, {}, 0) end, {})

if failures > 0 then
	print(failures .. " of " .. cases .. " failed")
	os.exit(1)
end
print("ok " .. cases .. " cases")
