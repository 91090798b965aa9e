/* The prefixes stand in one table, the refused ones too, so that none of them is
 * taken for a list. */
#include "keytable_spec.h"

static const struct {
	const char *prefix;
	enum keytable_kind kind;
	bool refused;
} prefixes[] = {
	{"file:", KEYTABLE_FILE, false}, {"refile:", KEYTABLE_PATTERNS, false}, {"csl:", KEYTABLE_LIST, false},
	{"db:", 0, true}, {"mdb:", 0, true}, {"lmdb:", 0, true}, {"dsn:", 0, true}, {"ldap:", 0, true},
	{"ldaps:", 0, true}, {"ldapi:", 0, true}, {"lua:", 0, true}, {"memcache:", 0, true}, {"erlang:", 0, true},
	{"socket:", 0, true}, {"repute:", 0, true},
};

static int refuse(const char *type, struct sbuf *error)
{
	sbuf_addf(error, "tables of the type %s are not read; write it out as a file, or use the keys in SQL", type);
	return ERR_PERM;
}

static int accept(enum keytable_kind kind, const char *path, struct keytable_spec *spec_out, struct sbuf *error)
{
	if (path[0] == '\0') {
		sbuf_adds(error, "expected the path of a table");
		return ERR_SYNTAX;
	}
	*spec_out = (struct keytable_spec){.kind = kind, .path = path};
	return 0;
}

int keytable_spec_parse(const char *value, struct keytable_spec *spec_out, struct sbuf *error)
{
	struct span v = span_str(value);
	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
		if (!span_istarts(v, span_str(prefixes[i].prefix)))
			continue;
		if (prefixes[i].refused)
			return refuse(prefixes[i].prefix, error);
		return accept(prefixes[i].kind, value + strlen(prefixes[i].prefix), spec_out, error);
	}
	if (span_iends(v, SPAN_LIT(".db")))
		return refuse("db:", error);
	if (value[0] == '/')
		return accept(KEYTABLE_FILE, value, spec_out, error);
	if (span_chr(v, '=') == SPAN_NPOS) {
		sbuf_adds(error, "expected file:PATH, refile:PATH, /PATH, or a list NAME=VALUE,...");
		return ERR_SYNTAX;
	}
	return accept(KEYTABLE_LIST, value, spec_out, error);
}

void keytable_spec_lines(const char *items, struct sbuf *out)
{
	struct span rest = span_str(items), item, name;
	bool more = true;
	while (more) {
		more = span_cut(&rest, ',', &item);
		item = span_trim(item);
		bool pair = span_cut(&item, '=', &name);
		sbuf_add(out, span_trim(name));
		if (pair) {
			sbuf_addc(out, ' ');
			sbuf_add(out, span_trim(item));
		}
		sbuf_addc(out, '\n');
	}
}
