/*
 * Terms are read in place, one after the other; nothing is allocated, so the
 * length of a record costs nothing but time linear in it.
 */
#include "lib/spf/spf_record.h"

#include "lib/base/num.h"
#include "lib/spf/spf_macro.h"

#define VERSION_TAG SPAN_LIT("v=spf1")

bool spf_record_is(struct span text)
{
	return span_istarts(text, VERSION_TAG) &&
	       (text.len == VERSION_TAG.len || text.ptr[VERSION_TAG.len] == ' ');
}

/* "0" or a number without leading zeros. */
static bool parse_prefix(struct span digits, uint64_t max, uint8_t *prefix_out)
{
	uint64_t value;
	if (digits.len > 1 && digits.ptr[0] == '0')
		return false;
	if (num_parse_u64(digits, max, &value) < 0)
		return false;
	*prefix_out = (uint8_t)value;
	return true;
}

/* Index of the slash in front of the digits at the end of S, or SPAN_NPOS. */
static size_t prefix_slash(struct span s)
{
	size_t i = s.len;
	while (i > 0 && ascii_isdigit(s.ptr[i - 1]))
		i--;
	return i > 0 && i < s.len && s.ptr[i - 1] == '/' ? i - 1 : SPAN_NPOS;
}

/* Cuts [ "/" ip4-cidr ] [ "//" ip6-cidr ] off the end of *ARGS. */
static bool cut_dual_cidr(struct span *args, struct spf_term *term)
{
	size_t slash = prefix_slash(*args);
	if (slash != SPAN_NPOS && slash > 0 && args->ptr[slash - 1] == '/') {
		if (!parse_prefix(span_skip(*args, slash + 1), 128, &term->prefix6))
			return false;
		*args = span_take(*args, slash - 1);
		slash = prefix_slash(*args);
	}
	if (slash == SPAN_NPOS)
		return true;
	if (!parse_prefix(span_skip(*args, slash + 1), 32, &term->prefix4))
		return false;
	*args = span_take(*args, slash);
	return true;
}

/* ":" domain-spec, where there is one. */
static bool parse_domain(struct span args, bool required, struct spf_term *term)
{
	if (args.len == 0)
		return !required;
	term->domain_spec = span_skip(args, 1);
	return args.ptr[0] == ':' && spf_macro_domain_valid(term->domain_spec);
}

static bool parse_network(struct span args, bool v6, struct spf_term *term)
{
	if (args.len < 2 || args.ptr[0] != ':')
		return false;
	struct span address, prefix = span_skip(args, 1);
	bool with_prefix = span_cut(&prefix, '/', &address);
	bool colon = span_chr(address, ':') != SPAN_NPOS;
	struct ip ip;
	uint8_t bits = v6 ? 128 : 32;
	if (colon != v6 || span_chr(address, '[') != SPAN_NPOS || ip_parse(address, &ip) < 0)
		return false;
	if (with_prefix && !parse_prefix(prefix, bits, &bits))
		return false;
	/* A mapped client is compared as IPv4 (section 5); a mapped network stays
	 * one of IPv6, into which others fall where its prefix is short. */
	if (v6 && ip.bits == 32) {
		memmove(ip.bytes + 12, ip.bytes, 4);
		memset(ip.bytes, 0, 10);
		memset(ip.bytes + 10, 0xff, 2);
		ip.bits = 128;
	}
	term->net = ip_net_of(&ip, bits);
	return true;
}

static bool parse_args(struct span args, struct spf_term *term)
{
	switch (term->kind) {
	case SPF_ALL:
		return args.len == 0;
	case SPF_A:
	case SPF_MX:
		return cut_dual_cidr(&args, term) && parse_domain(args, false, term);
	case SPF_PTR:
		return parse_domain(args, false, term);
	case SPF_INCLUDE:
	case SPF_EXISTS:
		return parse_domain(args, true, term);
	case SPF_IP4:
		return parse_network(args, false, term);
	case SPF_IP6:
		return parse_network(args, true, term);
	default:
		return false;
	}
}

static bool parse_mechanism(struct span text, struct spf_term *term)
{
	static const struct {
		struct span name;
		enum spf_kind kind;
	} mechanisms[] = {
		{{"all", 3}, SPF_ALL}, {{"include", 7}, SPF_INCLUDE}, {{"a", 1}, SPF_A},
		{{"mx", 2}, SPF_MX},   {{"ptr", 3}, SPF_PTR},         {{"ip4", 3}, SPF_IP4},
		{{"ip6", 3}, SPF_IP6}, {{"exists", 6}, SPF_EXISTS},
	};
	term->qualifier = '+';
	if (text.len > 0 && strchr("+-~?", text.ptr[0]) != NULL && text.ptr[0] != '\0') {
		term->qualifier = text.ptr[0];
		text = span_skip(text, 1);
	}
	size_t name_len = 0;
	while (name_len < text.len && ascii_isalnum(text.ptr[name_len]))
		name_len++;
	for (size_t i = 0; i < sizeof(mechanisms) / sizeof(mechanisms[0]); i++) {
		if (span_ieq(span_take(text, name_len), mechanisms[i].name)) {
			term->kind = mechanisms[i].kind;
			return parse_args(span_skip(text, name_len), term);
		}
	}
	return false;
}

/* Length of the name of a modifier, 0 where TEXT is none. */
static size_t modifier_name(struct span text)
{
	size_t i = 0;
	while (i < text.len && (ascii_isalnum(text.ptr[i]) || (i > 0 && strchr("-_.", text.ptr[i]) != NULL &&
							       text.ptr[i] != '\0')))
		i++;
	return i > 0 && ascii_isalpha(text.ptr[0]) && i < text.len && text.ptr[i] == '=' ? i : 0;
}

static bool parse_term(struct span text, struct spf_term *term)
{
	*term = (struct spf_term){.text = text, .prefix4 = 32, .prefix6 = 128};
	size_t name_len = modifier_name(text);
	if (name_len == 0)
		return parse_mechanism(text, term);
	struct span name = span_take(text, name_len);
	struct span value = span_skip(text, name_len + 1);
	term->kind = span_ieq(name, SPAN_LIT("redirect")) ? SPF_REDIRECT
		     : span_ieq(name, SPAN_LIT("exp"))	  ? SPF_EXP
							  : SPF_UNKNOWN_MODIFIER;
	term->domain_spec = value;
	if (term->kind == SPF_UNKNOWN_MODIFIER)
		return spf_macro_valid(value, false);
	return spf_macro_domain_valid(value);
}

int spf_term_next(struct span *rest, struct spf_term *term_out)
{
	struct span text;
	do {
		if (rest->len == 0)
			return 0;
		(void)span_cut(rest, ' ', &text);
	} while (text.len == 0);
	return parse_term(text, term_out) ? 1 : ERR_SYNTAX;
}

int spf_record_check(struct span record, struct spf_term *redirect_out, struct spf_term *exp_out,
		     struct span *bad_out)
{
	struct spf_term redirect = {0}, exp = {0}, term;
	struct span rest = span_skip(record, VERSION_TAG.len);
	int rc;
	while ((rc = spf_term_next(&rest, &term)) > 0) {
		struct spf_term *once = term.kind == SPF_REDIRECT ? &redirect
					: term.kind == SPF_EXP	  ? &exp
								  : NULL;
		if (once == NULL)
			continue;
		if (once->text.len > 0) {
			rc = ERR_SYNTAX;
			break;
		}
		*once = term;
	}
	if (rc < 0) {
		*bad_out = term.text;
		return rc;
	}
	*redirect_out = redirect;
	*exp_out = exp;
	return 0;
}
