/*
 * One pass over the tags; the first of equal tags counts.  What falls back on
 * what is settled at the end, when all tags are known.
 */
#include "milter-dkim/dmarc_record.h"

struct tag_value {
	struct span name, value;
};

static struct span trim_wsp(struct span s)
{
	while (s.len > 0 && (s.ptr[0] == ' ' || s.ptr[0] == '\t'))
		s = span_skip(s, 1);
	while (s.len > 0 && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t'))
		s.len--;
	return s;
}

static bool take_tag(struct span *rest, struct tag_value *tag)
{
	struct span text;
	if (rest->len == 0)
		return false;
	(void)span_cut(rest, ';', &text);
	tag->value = text;
	if (!span_cut(&tag->value, '=', &tag->name))
		tag->value = SPAN_EMPTY;
	tag->name = trim_wsp(tag->name);
	tag->value = trim_wsp(tag->value);
	return true;
}

static bool parse_policy(struct span value, enum dmarc_policy *policy_out)
{
	for (enum dmarc_policy p = DMARC_NONE; p <= DMARC_REJECT; p++) {
		if (span_ieq(value, span_str(dmarc_policy_name(p)))) {
			*policy_out = p;
			return true;
		}
	}
	return false;
}

/* What the tags say before the fall-backs. */
struct raw {
	struct span p, sp, np, adkim, aspf, t, psd, rua, ruf, fo;
	unsigned seen; /* a bit for each of them */
};

static void set_tag(struct raw *raw, const struct tag_value *tag)
{
	struct {
		const char *name;
		struct span *value;
	} tags[] = {
		{"p", &raw->p}, {"sp", &raw->sp},   {"np", &raw->np},   {"adkim", &raw->adkim}, {"aspf", &raw->aspf},
		{"t", &raw->t}, {"psd", &raw->psd}, {"rua", &raw->rua}, {"ruf", &raw->ruf},     {"fo", &raw->fo},
	};
	for (unsigned i = 0; i < sizeof(tags) / sizeof(tags[0]); i++) {
		if (!span_ieq(tag->name, span_str(tags[i].name)) || (raw->seen & 1u << i) != 0)
			continue;
		raw->seen |= 1u << i;
		*tags[i].value = tag->value;
	}
}

static bool seen(const struct raw *raw, unsigned index)
{
	return (raw->seen & 1u << index) != 0;
}

static void settle_policies(const struct raw *raw, struct dmarc_record *r)
{
	bool valid = !seen(raw, 0) || parse_policy(raw->p, &r->p);
	r->has_sp = seen(raw, 1) && parse_policy(raw->sp, &r->sp);
	r->has_np = seen(raw, 2) && parse_policy(raw->np, &r->np);
	valid = valid && r->has_sp == seen(raw, 1) && r->has_np == seen(raw, 2);
	if (!valid) {
		struct span list = raw->rua, uri;
		r->invalid = !dmarc_uri_next(&list, &uri);
		r->p = DMARC_NONE;
		r->has_sp = r->has_np = false;
	}
	if (!r->has_sp)
		r->sp = r->p;
	if (!r->has_np)
		r->np = r->sp;
}

int dmarc_record_parse(struct span text, struct dmarc_record *record_out)
{
	struct span rest = text;
	struct tag_value tag;
	struct raw raw = {.seen = 0};
	if (!take_tag(&rest, &tag) || text.ptr[0] == ' ' || text.ptr[0] == '\t' ||
	    !span_ieq(tag.name, SPAN_LIT("v")) || !span_eq(tag.value, SPAN_LIT("DMARC1")))
		return ERR_SYNTAX;
	while (take_tag(&rest, &tag))
		set_tag(&raw, &tag);
	struct dmarc_record r = {.text = text, .rua = raw.rua, .ruf = raw.ruf, .fo = raw.fo};
	settle_policies(&raw, &r);
	r.strict_dkim = span_ieq(raw.adkim, SPAN_LIT("s"));
	r.strict_spf = span_ieq(raw.aspf, SPAN_LIT("s"));
	r.testing = span_ieq(raw.t, SPAN_LIT("y"));
	r.psd = span_ieq(raw.psd, SPAN_LIT("y"))   ? DMARC_PSD_YES
		: span_ieq(raw.psd, SPAN_LIT("n")) ? DMARC_PSD_NO
						   : DMARC_PSD_UNKNOWN;
	*record_out = r;
	return 0;
}

/* scheme ":" and something behind it, in visible ASCII; mailto with an @. */
static bool is_uri(struct span s)
{
	size_t colon = span_chr(s, ':');
	if (colon == SPAN_NPOS || colon == 0 || colon + 1 == s.len || !ascii_isalpha(s.ptr[0]))
		return false;
	for (size_t i = 0; i < s.len; i++) {
		char c = s.ptr[i];
		if (c <= ' ' || c > '~' || strchr("<>\"\\^`{|}", c) != NULL)
			return false;
		if (i < colon && !ascii_isalnum(c) && strchr("+-.", c) == NULL)
			return false;
	}
	if (!span_istarts(s, SPAN_LIT("mailto:")))
		return true;
	size_t at = span_rchr(s, '@');
	return at != SPAN_NPOS && at > colon + 1 && at + 1 < s.len;
}

bool dmarc_uri_next(struct span *list, struct span *uri_out)
{
	while (list->len > 0) {
		struct span uri, item;
		(void)span_cut(list, ',', &item);
		item = trim_wsp(item);
		(void)span_cut(&item, '!', &uri);
		if (is_uri(uri)) {
			*uri_out = uri;
			return true;
		}
	}
	return false;
}

const char *dmarc_policy_name(enum dmarc_policy policy)
{
	static const char *const names[] = {"none", "quarantine", "reject"};
	return names[policy];
}
