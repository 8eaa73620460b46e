/*
 * options.c: --enclave[=TENANT].
 *
 * The option is a wish. Slurm carries it to slurmctld as ENCLAVE_OPTION_ENV, where enclave.lua
 * holds it against the account; nothing on a node depends on it.
 */
#include <string.h>

#include "enclave.h"

/*
 * enclave_tenant_valid - is name spelled as a tenant's name is?
 * @name: the option's value, from the user
 */
bool enclave_tenant_valid(const char *name)
{
	size_t n = strnlen(name, ENCLAVE_TENANT_MAX + 1);

	if (n == 0 || n > ENCLAVE_TENANT_MAX || name[0] == '_' || name[0] == '-')
		return false;
	return strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-") == n;
}

/*
 * on_enclave - Slurm's callback for the option
 * @arg: the value; NULL, "" or (from slurmctld's copy) "(null)" when there is none
 * @remote: in slurmstepd
 *
 * The user's client: -1 for a name that can't be one. slurmstepd (root): always 0.
 */
static int on_enclave(int val, const char *arg, int remote)
{
	(void)val;
	if (remote)
		return 0;
	if (!arg || strcmp(arg, "(null)") == 0)
		arg = "";
	if (arg[0] && !enclave_tenant_valid(arg)) {
		slurm_error("enclave: E109: a tenant's name is at most %d of a-z 0-9 _ -, "
			    "the first a letter or digit",
			    ENCLAVE_TENANT_MAX);
		return -1;
	}
	return enclave_route_option(arg);
}

/*
 * enclave_options_register - make the option known to Slurm
 *
 * Must be called from slurm_spank_init in every context that sees options. 0 or -1.
 */
int enclave_options_register(spank_t spank)
{
	static char name[] = ENCLAVE_OPTION;
	static char arginfo[] = "[TENANT]";
	static char usage[] = "[enclave] run the job in a secure enclave; TENANT chooses among "
			      "the tenants of the account";
	struct spank_option option = {
		.name = name,
		.arginfo = arginfo,
		.usage = usage,
		.has_arg = 2, /* optional */
		.val = 0,
		.cb = on_enclave,
	};

	if (spank_option_register(spank, &option) == ESPANK_SUCCESS)
		return 0;
	slurm_error("enclave: register --%s: refused by Slurm", ENCLAVE_OPTION);
	return -1;
}
