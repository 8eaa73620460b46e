/*
 * gofile.c: the bytes of the gate files. No Slurm and no file in it.
 *
 * Everything that is not exactly the format is refused. internal/gate writes it, and a fuzz test
 * in spanktest holds the two readings together.
 */
#include <errno.h>
#include <string.h>

#include "enclave.h"

/* A cursor over the bytes of one file. */
struct cursor {
	const char *at;
	const char *end;
};

/* A line without its LF. */
struct line {
	const char *at;
	size_t len;
};

/* next_line - take one LF-terminated line of printable ASCII; 0 or -1 */
static int next_line(struct cursor *c, struct line *l)
{
	const char *lf = memchr(c->at, '\n', (size_t)(c->end - c->at));

	if (!lf)
		return -1;
	for (const char *p = c->at; p < lf; p++) {
		if (*p < 0x20 || *p > 0x7e)
			return -1;
	}
	l->at = c->at;
	l->len = (size_t)(lf - c->at);
	c->at = lf + 1;
	return 0;
}

static bool equals(struct line l, const char *text)
{
	return l.len == strlen(text) && memcmp(l.at, text, l.len) == 0;
}

/* after - cut "key " off the line's front; 0 or -1 */
static int after(struct line *l, const char *key)
{
	size_t n = strlen(key);

	if (l->len <= n || memcmp(l->at, key, n) != 0 || l->at[n] != ' ')
		return -1;
	l->at += n + 1;
	l->len -= n + 1;
	return 0;
}

/* field - take the line "key value" and give its value; 0 or -1 */
static int field(struct cursor *c, const char *key, struct line *value)
{
	if (next_line(c, value) < 0)
		return -1;
	return after(value, key);
}

/* decimal - a number in its one spelling: no sign, no leading zero; 0 or -1 */
static int decimal(struct line l, uint64_t max, uint64_t *out)
{
	uint64_t n = 0;

	if (l.len == 0 || (l.len > 1 && l.at[0] == '0'))
		return -1;
	for (size_t i = 0; i < l.len; i++) {
		unsigned int digit = (unsigned int)(l.at[i] - '0');

		if (digit > 9 || n > (max - digit) / 10)
			return -1;
		n = n * 10 + digit;
	}
	*out = n;
	return 0;
}

static int decimal32(struct line l, uint32_t *out)
{
	uint64_t n;

	if (decimal(l, UINT32_MAX, &n) < 0)
		return -1;
	*out = (uint32_t)n;
	return 0;
}

/* take - copy a value into a buffer of size bytes and end it; 0 or -1 when it does not fit */
static int take(char *out, size_t size, struct line l)
{
	if (l.len >= size)
		return -1;
	memcpy(out, l.at, l.len);
	out[l.len] = '\0';
	return 0;
}

/* boot_id - 8-4-4-4-12 lower-case hexadecimal digits; 0 or -1 */
static int boot_id(char *out, struct line l)
{
	if (l.len != ENCLAVE_BOOT_LEN)
		return -1;
	for (size_t i = 0; i < l.len; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash != (l.at[i] == '-'))
			return -1;
		if (!dash && !strchr("0123456789abcdef", l.at[i]))
			return -1;
	}
	return take(out, ENCLAVE_BOOT_LEN + 1, l);
}

/* name_allowed - ENCLAVE_[A-Z0-9_]+ or the one PMIx switch, nothing that a loader reads */
static bool name_allowed(const char *name)
{
	const size_t n = strlen(ENCLAVE_ENV_PREFIX);

	if (strcmp(name, ENCLAVE_ENV_PMIX) == 0)
		return true;
	if (strncmp(name, ENCLAVE_ENV_PREFIX, n) != 0 || !name[n])
		return false;
	return strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == strlen(name);
}

/* pair - "NAME=value" into go's next pair; a name may come once; 0 or -1 */
static int pair(struct enclave_go *go, struct line l)
{
	const char *eq = memchr(l.at, '=', l.len);
	struct enclave_pair *p;
	struct line name, value;

	if (!eq || go->pairs >= ENCLAVE_GO_PAIRS)
		return -1;
	p = &go->pair[go->pairs];
	name = (struct line){ l.at, (size_t)(eq - l.at) };
	value = (struct line){ eq + 1, l.len - name.len - 1 };
	if (take(p->name, sizeof(p->name), name) < 0 || !name_allowed(p->name) ||
	    take(p->value, sizeof(p->value), value) < 0 || strpbrk(p->value, "'\"\\"))
		return -1;
	for (unsigned int i = 0; i < go->pairs; i++) {
		if (strcmp(go->pair[i].name, p->name) == 0)
			return -1;
	}
	go->pairs++;
	return 0;
}

/*
 * enclave_go_parse - read a GO file's bytes
 * @text, @len: the whole file
 * @go: filled on success, worthless otherwise
 *
 * 0, or -1 with EBADMSG for anything but the format of abi.h to the byte.
 */
int enclave_go_parse(const char *text, size_t len, struct enclave_go *go)
{
	struct cursor c = { text, text + len };
	struct line l;

	memset(go, 0, sizeof(*go));
	if (len > ENCLAVE_GO_MAX || next_line(&c, &l) < 0 || !equals(l, ENCLAVE_GO_HEADER))
		goto bad;
	if (field(&c, "job", &l) < 0 || decimal32(l, &go->job) < 0 || go->job == 0)
		goto bad;
	if (field(&c, "restart", &l) < 0 || decimal32(l, &go->restart) < 0)
		goto bad;
	if (field(&c, "boot", &l) < 0 || boot_id(go->boot, l) < 0)
		goto bad;
	if (field(&c, "expires", &l) < 0 || decimal(l, UINT64_MAX, &go->expires) < 0)
		goto bad;
	for (;;) {
		if (next_line(&c, &l) < 0)
			goto bad;
		if (equals(l, "end"))
			break;
		if (after(&l, "env") < 0 || pair(go, l) < 0)
			goto bad;
	}
	if (c.at == c.end)
		return 0;
bad:
	errno = EBADMSG;
	return -1;
}

/*
 * enclave_deny_parse - read a DENY file's bytes; as enclave_go_parse
 *
 * A long reason is cut, not refused: the user should read its beginning.
 */
int enclave_deny_parse(const char *text, size_t len, struct enclave_deny *deny)
{
	struct cursor c = { text, text + len };
	struct line l;

	memset(deny, 0, sizeof(*deny));
	if (len > ENCLAVE_GO_MAX || next_line(&c, &l) < 0 || !equals(l, ENCLAVE_DENY_HEADER))
		goto bad;
	if (field(&c, "job", &l) < 0 || decimal32(l, &deny->job) < 0 || deny->job == 0)
		goto bad;
	if (field(&c, "code", &l) < 0 || l.len != 4 || l.at[0] != 'E' ||
	    take(deny->code, sizeof(deny->code), l) < 0 ||
	    strspn(deny->code + 1, "0123456789") != 3)
		goto bad;
	if (field(&c, "reason", &l) < 0)
		goto bad;
	if (l.len >= sizeof(deny->reason))
		l.len = sizeof(deny->reason) - 1;
	(void)take(deny->reason, sizeof(deny->reason), l);
	if (next_line(&c, &l) == 0 && equals(l, "end") && c.at == c.end)
		return 0;
bad:
	errno = EBADMSG;
	return -1;
}

/*
 * enclave_view_parse - read a VIEW file's bytes; as enclave_go_parse
 */
int enclave_view_parse(const char *text, size_t len, struct enclave_view *view)
{
	struct cursor c = { text, text + len };
	struct line l;

	memset(view, 0, sizeof(*view));
	if (len > ENCLAVE_GO_MAX || next_line(&c, &l) < 0 || !equals(l, ENCLAVE_VIEW_HEADER))
		goto bad;
	if (field(&c, "job", &l) < 0 || decimal32(l, &view->job) < 0 || view->job == 0)
		goto bad;
	if (field(&c, "boot", &l) < 0 || boot_id(view->boot, l) < 0)
		goto bad;
	if (field(&c, "namespace", &l) < 0 || decimal(l, UINT64_MAX, &view->space) < 0)
		goto bad;
	if (next_line(&c, &l) == 0 && equals(l, "end") && c.at == c.end)
		return 0;
bad:
	errno = EBADMSG;
	return -1;
}
