--[[
enclave.lua: which jobs run in a secure enclave, enforced inside slurmctld.

The site's job_submit.lua loads it and asks it, last, about every job:

	local enclave = dofile("/etc/slurm-enclave/enclave.lua")
	function slurm_job_submit(d, p, uid) return enclave.submit(d, p, uid) end
	function slurm_job_modify(d, r, p, uid) return enclave.modify(d, r, p, uid) end

A site with rules of its own ends them with "return enclave.submit(d, p, uid)", so that what the
rules chose is looked at too. Paths and names can be set between the lines:

	enclave.table_path = "/var/lib/slurm-enclave/tenants.lua"
	enclave.partitions = { "cpu-sev" }    -- only for the time when there is no table

A job is meant for an enclave when it carries --enclave[=TENANT], when its partition list holds
an enclave partition, when it has none and an enclave is the site's default, or when its account's tenant
requires it. Such a job is pinned: an enclave
partition and no other, whole nodes, a tenant that its account is entitled to, no root, no
heterogeneous job. Everything else is left alone, whatever happens here.

The table of tenants is written by enclaved (internal/tenants, RenderLua), replaced by rename:

	return {
		version = 1,
		uid_min = 1000,
		interactive = true,                         -- false: salloc and srun are refused
		nodes = 12,                                 -- enrolled; absent while that is not known
		partitions = { "cpu-sev", },                -- jobs are routed to the first
		tenants = { "digimed", "genome", },
		accounts = {                                -- only accounts that have a tenant
			["clinic"] = { tenants = { "digimed", "genome", }, default = "digimed", required = true },
		},
	}

It is data: a file with a parenthesis in it, or with anything before "return {" but comment
lines, is refused unread, so nothing in it can be called. A missing or broken table refuses the
jobs that are meant for an enclave and no others; which accounts require one is remembered from
the last good table.

Nothing here calls out, writes, or waits: slurmctld holds its locks. Lua 5.1 to 5.4.
]]

local enclave = {
	table_path = "/var/lib/slurm-enclave/tenants.lua",
	partitions = { "cpu-sev" },
}

local OPTION = "_SLURM_SPANK_OPTION_enclave_enclave="
local TABLE_MAX = 1024 * 1024
local PENDING_COMMENT = 'enclave={"v":"pending"}'

local last_good, last_text -- the last table that could be read, and as what

-- A refusal travels as an error value of this shape, so that it ends the deciding at once.
local function refuse(code, format, ...)
	error({ code = code, text = string.format(format, ...) }, 0)
end

local function number_or(value, default)
	return type(value) == "number" and value or default
end

-- Slurm's "not set" of 32 and of 16 bits.
local function unset(value)
	return value == nil or value == number_or(slurm.NO_VAL, 4294967294)
		or value == number_or(slurm.NO_VAL16, 65534)
end

local function given(text)
	return type(text) == "string" and text ~= ""
end

-- Text of a user's, for a message.
local function quoted(text)
	return '"' .. tostring(text):gsub("[^%w_.@+,-]", "?"):sub(1, 64) .. '"'
end

local function set_of(list)
	local set = {}
	for _, name in ipairs(list) do
		set[name] = true
	end
	return set
end

-- The table ------------------------------------------------------------------------------------

local function names(list, what)
	assert(type(list) == "table", what .. " is not a list")
	for key, name in pairs(list) do
		assert(type(key) == "number" and key >= 1 and key <= #list, what .. " is not a list")
		assert(type(name) == "string" and name:match("^[%w_][%w_.@+-]*$"), what .. " holds a bad name")
	end
	return set_of(list)
end

local function check(t)
	assert(type(t) == "table" and t.version == 1, "its version is not 1")
	assert(type(t.uid_min) == "number" and t.uid_min >= 1, "uid_min is not a user id")
	assert(type(t.interactive) == "boolean", "interactive is not told")
	assert(t.nodes == nil or type(t.nodes) == "number", "nodes is not a number")
	t.is_partition = names(t.partitions, "partitions")
	assert(#t.partitions > 0, "it names no partition")
	t.is_tenant = names(t.tenants, "tenants")
	assert(type(t.accounts) == "table", "it has no accounts")
	for name, account in pairs(t.accounts) do
		assert(type(name) == "string" and type(account) == "table", "an account is not one")
		assert(type(account.required) == "boolean", "account " .. name .. ": required is not told")
		account.may = names(account.tenants, "tenants of account " .. name)
		for tenant in pairs(account.may) do
			assert(t.is_tenant[tenant], "account " .. name .. " has an unknown tenant")
		end
		assert(account.default == nil or account.may[account.default],
			"account " .. name .. " has a default that is not its own")
	end
	return t
end

-- Data only: see the head of this file.
local function parse(text)
	assert(#text <= TABLE_MAX, "it is too long")
	while text:sub(1, 2) == "--" do
		text = text:match("^[^\n]*\n(.*)$") or ""
	end
	assert(text:sub(1, 8) == "return {" and not text:find("(", 1, true), "it is not plain data")
	local chunk
	if setfenv then -- Lua 5.1
		chunk = assert(loadstring(text, "=tenants"))
		setfenv(chunk, {})
	else
		chunk = assert(load(text, "=tenants", "t", {}))
	end
	return check(chunk())
end

-- The table, or nil and why not.
local function read_table()
	local file, why = io.open(enclave.table_path, "rb")
	if not file then
		return nil, why
	end
	local text = file:read(TABLE_MAX + 1) or ""
	file:close()
	-- A change of an array asks for each of its elements, thousands of them, and slurmctld waits.
	if text == last_text then
		return last_good
	end
	local ok, result = pcall(parse, text)
	if not ok then
		return nil, tostring(result)
	end
	last_good, last_text = result, text
	return result
end

-- What is known of partitions and accounts even while the table can't be read.
local function memory()
	return last_good or { is_partition = set_of(enclave.partitions), accounts = {} }
end

-- The intent -----------------------------------------------------------------------------------

-- Whether --enclave was given, and its value.
local function option(d)
	for _, entry in pairs(d.spank_job_env or {}) do
		if type(entry) == "string" and entry:sub(1, #OPTION) == OPTION then
			local value = entry:sub(#OPTION + 1)
			if value == "" or value == "(null)" then
				return true, nil
			end
			return true, value
		end
	end
	return false, nil
end

-- How many partitions of a list are enclaves, and how many are not.
local function count(list, known)
	local inside, outside = 0, 0
	for name in tostring(list or ""):gmatch("[^,%s]+") do
		if known.is_partition[name] then
			inside = inside + 1
		else
			outside = outside + 1
		end
	end
	return inside, outside
end

-- Slurm compares accounts without regard to case, so must we.
local function account_of(known, name)
	return given(name) and known.accounts[name:lower()] or nil
end

local function requires(known, name)
	local account = account_of(known, name)
	return account ~= nil and account.required
end

-- The checks -----------------------------------------------------------------------------------

local function usable(t, why)
	if not t then
		slurm.log_error("enclave: read %s: %s", enclave.table_path, tostring(why))
		refuse("E100", "the table of tenants can't be read now: ask your administrators")
	end
end

local function check_user(t, uid)
	if type(uid) ~= "number" or uid < t.uid_min then
		refuse("E104", "jobs of root and of system users don't run in an enclave")
	end
end

local function check_tenant(t, name, wanted)
	if wanted and not (wanted:match("^[a-z0-9][a-z0-9_-]*$") and #wanted <= 63) then
		refuse("E109", "%s is not a tenant's name", quoted(wanted))
	end
	if wanted and not t.is_tenant[wanted] then
		refuse("E101", "there is no tenant %s", wanted)
	end
	if not given(name) then
		refuse("E102", "the job has no account, and the tenant follows from it: use --account")
	end
	local account = account_of(t, name)
	if not account then
		refuse("E102", "account %s has no tenant", quoted(name))
	end
	if wanted and not account.may[wanted] then
		refuse("E103", "account %s is not entitled to tenant %s", quoted(name), wanted)
	end
	if not (wanted or account.default) then
		refuse("E117", "account %s has several tenants: choose one with --enclave=TENANT", quoted(name))
	end
end

-- What can never run is better refused than queued for ever.
local function check_size(t, nodes)
	if t.nodes and not unset(nodes) and nodes > t.nodes then
		refuse("E118", "the site has %d attested nodes, you asked for %d", t.nodes, nodes)
	end
end

-- srun inside a batch job or an allocation is a step and never comes here.
local function check_interactive(t, script)
	if not t.interactive and not given(script) then
		refuse("E141", "this site lets no interactive job into an enclave: submit a script with sbatch")
	end
end

local function check_het(offset, id)
	if not unset(offset) or (not unset(id) and id ~= 0) then
		refuse("E105", "a heterogeneous job can't have components in an enclave")
	end
end

-- Submit ---------------------------------------------------------------------------------------

-- The enclave partition that a job without a partition is for: Slurm gives it the site's default one, after
-- having asked here. Any other default is nobody's choice.
local function default_enclave(d, partitions, known)
	if given(d.partition) or type(partitions) ~= "table" then
		return nil
	end
	for name, partition in pairs(partitions) do
		if known.is_partition[name] and partition.flag_default == 1 then
			return name
		end
	end
	return nil
end

-- Why a job is meant for an enclave: "option", "partition", "account" or nil.
local function intent(d, partitions, known, account)
	if option(d) then
		return "option"
	end
	if count(d.partition, known) > 0 or default_enclave(d, partitions, known) then
		return "partition"
	end
	if requires(known, account) then
		return "account"
	end
	return nil
end

local function choose_partition(d, partitions, t, why, account)
	local default = default_enclave(d, partitions, t)
	if default then
		d.partition = default
		return
	end
	local inside, outside = count(d.partition, t)
	if inside > 0 and outside > 0 then
		refuse("E106", "partition list %s mixes enclaves and others: a job runs in one kind",
			quoted(d.partition))
	end
	if inside > 0 then
		return
	end
	if outside > 0 and why == "option" then
		refuse("E106", "--enclave and partition %s contradict each other: leave one out",
			quoted(d.partition))
	end
	if outside > 0 then
		slurm.log_user("%s", "enclave: account " .. quoted(account)
			.. " requires an enclave: the partition is " .. t.partitions[1])
	end
	d.partition = t.partitions[1]
end

-- The value that the plugin looks for in place of Slurm's "1".
local LOGIN = "enclave"

-- sbatch --get-user-env, and --export with anything but ALL, have slurmd run the user's login
-- shell as a child of its own, before the gate and in no step. The plugin gives the job what a
-- login without profile has; what the profile does, the script can do inside.
local function keep_login(d)
	if not given(d.script) or not d.environment or d.environment.SLURM_GET_USER_ENV ~= "1" then
		return
	end
	d.environment.SLURM_GET_USER_ENV = LOGIN
	slurm.log_user("%s", "enclave: the node runs no login profile before the job: if the script needs what yours sets, "
		.. "begin it with #!/bin/bash -l")
end

local function submit(d, partitions)
	local t, broken = read_table()
	local known = t or memory()
	local account = given(d.account) and d.account or d.default_account
	local why = intent(d, partitions, known, account)
	if not why then
		return
	end
	usable(t, broken)
	check_user(t, d.user_id)
	check_interactive(t, d.script)
	check_het(d.het_job_offset)
	local _, wanted = option(d)
	check_tenant(t, account, wanted)
	check_size(t, d.min_nodes)
	choose_partition(d, partitions, t, why, account)
	d.shared = 0 -- whole nodes: the fence and the data are the node's
	if not given(d.admin_comment) then
		d.admin_comment = PENDING_COMMENT
	end
	-- A fault that is nobody's requeues the job; a user's own --no-requeue stands.
	if given(d.script) and unset(d.requeue) then
		d.requeue = 1
	end
	keep_login(d)
	if not given(d.script) then
		slurm.log_user("%s", "enclave: what goes between this host and the job (standard input and output) is in the clear")
	end
end

-- Modify ---------------------------------------------------------------------------------------

-- What may not change once the nodes have been admitted, and what it is called. Of nodes the record has what
-- was asked for, not what was given: sbatch -N2-4 that got four of them asked for two, and the same two again is
-- an order to give the others back. So nothing may be said of them at all.
local FIXED = {
	{ "partition", "partition" }, { "account", "account" }, { "req_nodes", "node list", always = true },
	{ "exc_nodes", "excluded nodes", always = true }, { "features", "features" },
	{ "min_nodes", "number of nodes", always = true }, { "max_nodes", "number of nodes", always = true },
	{ "shared", "sharing of nodes" },
}

local function modify_inside(d, r, t, broken, pending)
	for _, field in ipairs(FIXED) do
		local value = d[field[1]]
		if not pending and not unset(value) and (field.always or value ~= r[field[1]]) then
			refuse("E107", "the %s of a job in an enclave can't change after its start", field[2])
		end
	end
	local known = t or memory()
	local inside, outside = count(d.partition, known)
	if outside > 0 or (d.partition ~= nil and inside == 0) then
		refuse("E107", "a job of an enclave can't leave it for partition %s", quoted(d.partition))
	end
	if not unset(d.shared) and d.shared ~= 0 then
		refuse("E107", "a job in an enclave has its nodes for itself")
	end
	if pending and t then
		check_size(t, d.min_nodes)
	end
	if given(d.account) and d.account ~= r.account then
		usable(t, broken)
		local account = account_of(t, d.account)
		if not account then
			refuse("E102", "account %s has no tenant", quoted(d.account))
		end
	end
end

local function modify_entering(d, r, t, broken, pending)
	usable(t, broken)
	if not pending then
		refuse("E107", "a job that has started can't enter an enclave")
	end
	local _, outside = count(d.partition, t)
	if outside > 0 then
		refuse("E106", "partition list %s mixes enclaves and others: a job runs in one kind",
			quoted(d.partition))
	end
	check_user(t, r.user_id)
	check_het(nil, r.het_job_id)
	check_tenant(t, given(d.account) and d.account or r.account, nil)
	check_size(t, unset(d.min_nodes) and r.min_nodes or d.min_nodes)
	-- Nothing is set here: sharing and the comment are an administrator's to change, so a user's
	-- own change would fail for ours. The partition's OverSubscribe=EXCLUSIVE gives whole nodes.
end

local function modify(d, r)
	local t, broken = read_table()
	local known = t or memory()
	-- The low byte is the state, the rest are flags; 0 is pending.
	local pending = number_or(r.job_state, 1) % 256 == 0
	if count(r.partition, known) > 0 then
		modify_inside(d, r, t, broken, pending)
	elseif count(d.partition, known) > 0 then
		modify_entering(d, r, t, broken, pending)
	elseif requires(known, d.account) then
		refuse("E107", "account %s requires an enclave: submit the job anew", quoted(d.account))
	end
end

-- The way in -----------------------------------------------------------------------------------

-- What is Slurm's own word for a refusal. slurmrestd shows its users nothing else.
local WORDS = {
	E102 = "ESLURM_INVALID_ACCOUNT", E103 = "ESLURM_INVALID_ACCOUNT", E117 = "ESLURM_INVALID_ACCOUNT",
	E118 = "ESLURM_INVALID_NODE_COUNT",
}

local function denied(code, text)
	slurm.log_user("%s", "enclave: " .. code .. ": " .. text)
	local word = WORDS[code]
	if word and type(slurm[word]) == "number" and slurm[word] ~= 0 then
		return slurm[word]
	end
	return number_or(slurm.ESLURM_ACCESS_DENIED, number_or(slurm.ERROR, -1))
end

-- Slurm takes an answer that is no number for yes, and an error of ours would stop every job. So
-- an error is an answer too: no, where the job is plainly meant for an enclave, else yes.
local function guarded(decide, plainly, ...)
	local ok, problem = pcall(decide, ...)
	if ok then
		return number_or(slurm.SUCCESS, 0)
	end
	if type(problem) == "table" and problem.code then
		return denied(problem.code, problem.text)
	end
	slurm.log_error("enclave: %s", tostring(problem))
	local sure, meant = pcall(plainly, ...)
	if sure and not meant then
		return number_or(slurm.SUCCESS, 0)
	end
	return denied("E108", "enclave.lua failed on this job: ask your administrators")
end

-- submit answers slurm_job_submit.
function enclave.submit(d, partitions, _)
	return guarded(submit, function(job)
		return intent(job, partitions, memory(), given(job.account) and job.account or job.default_account)
	end, d, partitions)
end

-- modify answers slurm_job_modify.
function enclave.modify(d, r, _, _)
	return guarded(modify, function(change, job)
		local known = memory()
		return count(job.partition, known) > 0 or count(change.partition, known) > 0
	end, d, r)
end

return enclave
