/*
 * Invariant: an entry has either a network or a name, in lower case.
 */
#include "hostset.h"

#include "lib/mail/dnsname.h"
#include "lib/mail/idn.h"

struct hostset_entry {
	bool negated;
	struct ip_net net; /* bits == 0: none */
	char *name;
};

void hostset_done(struct hostset *set)
{
	for (size_t i = 0; i < set->count; i++)
		free(set->entries[i].name);
	free(set->entries);
	*set = (struct hostset){0};
}

static bool host_chars(struct span name)
{
	for (size_t i = 0; i < name.len; i++)
		if (!ascii_isalnum(name.ptr[i]) && name.ptr[i] != '-' && name.ptr[i] != '.' &&
		    name.ptr[i] != '_')
			return false;
	return dnsname_valid(span_skip(name, name.len > 0 && name.ptr[0] == '.'));
}

/* No name ends so: a mistyped address, which would never match. */
static bool like_address(struct span name)
{
	size_t dot = span_rchr(name, '.');
	struct span last = dot == SPAN_NPOS ? name : span_skip(name, dot + 1);
	for (size_t i = 0; i < last.len; i++)
		if (!ascii_isdigit(last.ptr[i]))
			return false;
	return true;
}

static int parse_entry(struct span word, struct hostset_entry *entry_out)
{
	struct hostset_entry e = {0};
	if (word.len > 0 && word.ptr[0] == '!') {
		e.negated = true;
		word = span_skip(word, 1);
	}
	if (ip_net_parse(word, &e.net) < 0) {
		char mem[DNSNAME_MAX + 2];
		struct sbuf lower;
		e.net.base.bits = 0;
		sbuf_init(&lower, mem, sizeof(mem));
		/* "*.DOMAIN", which many write, means .DOMAIN; a final dot is nothing. */
		word = span_skip(word, span_starts(word, SPAN_LIT("*.")));
		if (word.len > 0 && word.ptr[0] == '.')
			sbuf_addc(&lower, '.');
		if (idn_to_ascii(dnsname_trim(span_skip(word, lower.len)), &lower) < 0)
			return ERR_SYNTAX;
		if (!sbuf_ok(&lower) || !host_chars(sbuf_span(&lower)) || like_address(sbuf_span(&lower)))
			return ERR_SYNTAX;
		e.name = mem_strdup(sbuf_cstr(&lower));
	}
	*entry_out = e;
	return 0;
}

static bool separates(char c)
{
	return ascii_isfws(c) || c == ',';
}

int hostset_add(struct hostset *set, struct span text, struct span *bad_out)
{
	size_t i = 0;
	while (i < text.len) {
		if (separates(text.ptr[i])) {
			i++;
			continue;
		}
		if (text.ptr[i] == '#') {
			while (i < text.len && text.ptr[i] != '\n')
				i++;
			continue;
		}
		size_t from = i;
		while (i < text.len && !separates(text.ptr[i]) && text.ptr[i] != '#')
			i++;
		struct span word = span_of(text.ptr + from, i - from);
		if (set->count == HOSTSET_MAX)
			return ERR_LIMIT;
		if (set->count == set->size) {
			set->size = set->size == 0 ? 16 : set->size * 2;
			set->entries = mem_realloc(set->entries, set->size * sizeof(*set->entries));
		}
		if (parse_entry(word, &set->entries[set->count]) < 0) {
			*bad_out = word;
			return ERR_SYNTAX;
		}
		set->count++;
	}
	return 0;
}

/* Length of the match, so that the most specific wins; 0: none. */
static size_t name_match(const char *entry, struct span name)
{
	struct span e = span_str(entry);
	if (e.ptr[0] == '.')
		return span_iends(name, e) && name.len > e.len ? e.len : 0;
	return span_ieq(name, e) ? e.len + 1 : 0;
}

bool hostset_has_addresses(const struct hostset *set)
{
	for (size_t i = 0; i < set->count; i++)
		if (set->entries[i].name == NULL)
			return true;
	return false;
}

bool hostset_has(const struct hostset *set, const struct ip *ip, struct span name)
{
	size_t best_ip = 0, best_name = 0;
	bool by_ip = false, by_name = false;
	for (size_t i = 0; i < set->count; i++) {
		const struct hostset_entry *e = &set->entries[i];
		if (e->name == NULL) {
			size_t bits = (size_t)e->net.prefix + 1;
			if (ip->bits != 0 && bits > best_ip && ip_net_has(&e->net, ip)) {
				best_ip = bits;
				by_ip = !e->negated;
			}
		} else if (name_match(e->name, name) > best_name) {
			best_name = name_match(e->name, name);
			by_name = !e->negated;
		}
	}
	return best_name > 0 ? by_name : by_ip;
}
