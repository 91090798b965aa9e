/* A rule is built in a local struct and copied into the set only when all of it is right. */
#include "abuse_rules.h"

#include "lib/base/num.h"
#include "policyd-ratelimit/grammar.h"

#define MEMORY_DEFAULT_MS (INT64_C(30) * 86400000)
#define MINIMUM_DEFAULT 20
#define THROTTLE_DEFAULT 10
#define THROTTLE_DEFAULT_MS 3600000

static const char *const measure_names[] = {"networks", "new_recipients", "rejects"};
static const char *const option_names[] = {"ipv4_prefix", "ipv6_prefix", "memory", "throttle", "for", "minimum", NULL};
static const char *const step_names[] = {"NONE", "WARN", "THROTTLE", "HOLD", "SUSPEND"};

const char *abuse_measure_name(enum abuse_measure measure)
{
	return measure_names[measure];
}

const char *abuse_step_name(enum abuse_step step)
{
	return step_names[step];
}

static bool is_client(enum rule_scope scope)
{
	return scope == SCOPE_CLIENT_IP || scope == SCOPE_CLIENT_NET;
}

static int scope_take(struct span *rest, struct abuse_rule *r, struct sbuf *reason)
{
	struct span word = grammar_word_take(rest, "");
	if (rule_scope_find(word, &r->key.scope) < 0 || rule_scope_is_recipient(r->key.scope) ||
	    r->key.scope == SCOPE_GLOBAL) {
		sbuf_addf(reason, "`%.*s' is no scope of abuse", SPAN_ARG(word));
		return ERR_SYNTAX;
	}
	bool net = r->key.scope == SCOPE_CLIENT_NET;
	r->key.ipv4_prefix = net ? 24 : 32;
	r->key.ipv6_prefix = net ? 48 : 64;
	return 0;
}

static int measure_take(struct span *rest, struct abuse_rule *r, struct sbuf *reason)
{
	struct span word = grammar_word_take(rest, "");
	for (int i = ABUSE_NETWORKS; i <= ABUSE_REJECTS; i++)
		if (span_ieq(word, span_str(measure_names[i]))) {
			r->measure = (enum abuse_measure)i;
			if (r->measure != ABUSE_NETWORKS || !is_client(r->key.scope))
				return 0;
			sbuf_adds(reason, "networks are counted of accounts and senders, not of clients");
			return ERR_SYNTAX;
		}
	sbuf_addf(reason, "`%.*s' is neither networks, new_recipients nor rejects", SPAN_ARG(word));
	return ERR_SYNTAX;
}

static int count_parse(struct span text, enum abuse_measure measure, uint64_t *count, struct sbuf *reason)
{
	bool share = measure == ABUSE_REJECTS;
	if (share && !span_ends(text, SPAN_LIT("%"))) {
		sbuf_addf(reason, "`%.*s' is no share; write 50%%", SPAN_ARG(text));
		return ERR_SYNTAX;
	}
	if (num_parse_u64(span_take(text, text.len - share), share ? 99 : ABUSE_COUNT_MAX, count) == 0)
		return 0;
	sbuf_addf(reason, "`%.*s' is not a count of 0 to %d%s", SPAN_ARG(text), share ? 99 : ABUSE_COUNT_MAX,
		  share ? "%" : "");
	return ERR_SYNTAX;
}

static int step_find(struct span word)
{
	for (int i = ABUSE_WARN; i < ABUSE_STEPS; i++)
		if (span_ieq(word, span_str(step_names[i])))
			return i;
	return ABUSE_NONE;
}

static int step_take(struct span *rest, struct abuse_rule *r, int *last, struct sbuf *reason)
{
	struct span count, length = grammar_word_take(rest, ","), word = grammar_word_take(rest, ",");
	int64_t length_ms = 0;
	uint64_t number = 0;
	int step = step_find(word);
	if (!span_cut(&length, '/', &count) || step == ABUSE_NONE) {
		sbuf_addf(reason, "wanted COUNT/WINDOW and WARN, THROTTLE, HOLD or SUSPEND, not `%.*s'",
			  SPAN_ARG(word.len > 0 ? word : length));
		return ERR_SYNTAX;
	}
	int rc = count_parse(count, r->measure, &number, reason);
	if (rc == 0)
		rc = grammar_length_parse(length, &length_ms, reason);
	if (rc < 0)
		return rc;
	if (*last != ABUSE_NONE && (length_ms != r->length_ms || step <= *last || number <= r->counts[*last])) {
		sbuf_adds(reason, "the steps of one rule have the same window, and rise in count and severity");
		return ERR_SYNTAX;
	}
	r->length_ms = length_ms;
	r->counts[step] = number;
	r->steps |= 1u << step;
	*last = step;
	return 0;
}

static int prefix_set(struct abuse_rule *r, bool ipv4, struct span value, struct sbuf *reason)
{
	uint8_t *of_key = ipv4 ? &r->key.ipv4_prefix : &r->key.ipv6_prefix;
	uint8_t *of_net = ipv4 ? &r->ipv4_prefix : &r->ipv6_prefix;
	return grammar_prefix_parse(value, ipv4 ? 32 : 128, is_client(r->key.scope) ? of_key : of_net, reason);
}

static int throttle_set(struct abuse_rule *r, struct span value, struct sbuf *reason)
{
	struct span count, length = value;
	if (!span_cut(&length, '/', &count) || num_parse_u64(count, ABUSE_COUNT_MAX, &r->throttle) < 0) {
		sbuf_addf(reason, "`%.*s' is not COUNT/WINDOW", SPAN_ARG(value));
		return ERR_SYNTAX;
	}
	return grammar_length_parse(length, &r->throttle_ms, reason);
}

static int option_set(struct abuse_rule *r, struct span name, struct span value, struct sbuf *reason)
{
	bool nets = is_client(r->key.scope) || r->measure == ABUSE_NETWORKS;
	if (nets && (span_ieq(name, SPAN_LIT("ipv4_prefix")) || span_ieq(name, SPAN_LIT("ipv6_prefix"))))
		return prefix_set(r, span_ieq(name, SPAN_LIT("ipv4_prefix")), value, reason);
	if (r->measure == ABUSE_NEW_RECIPIENTS && span_ieq(name, SPAN_LIT("memory")))
		return grammar_length_parse(value, &r->memory_ms, reason);
	if ((r->steps >> ABUSE_THROTTLE & 1) != 0 && span_ieq(name, SPAN_LIT("throttle")))
		return throttle_set(r, value, reason);
	if (span_ieq(name, SPAN_LIT("for")))
		return grammar_length_parse(value, &r->for_ms, reason);
	if (r->measure == ABUSE_REJECTS && span_ieq(name, SPAN_LIT("minimum"))) {
		if (num_parse_u64(value, ABUSE_COUNT_MAX, &r->minimum) == 0 && r->minimum > 0)
			return 0;
		sbuf_addf(reason, "`%.*s' is not a number of recipients", SPAN_ARG(value));
		return ERR_SYNTAX;
	}
	sbuf_addf(reason, "`%.*s' is no option of this rule", SPAN_ARG(name));
	return ERR_SYNTAX;
}

static int options_take(struct span *rest, struct abuse_rule *r, struct sbuf *reason)
{
	unsigned seen = 0;
	for (*rest = span_trim(*rest); rest->len > 0; *rest = span_trim(*rest)) {
		struct span value, name = grammar_word_take(rest, "=,\"");
		if (name.len == 0 || !grammar_punct_take(rest, SPAN_LIT("="))) {
			sbuf_addf(reason, "`%.*s' is no option", SPAN_ARG(name.len > 0 ? name : *rest));
			return ERR_SYNTAX;
		}
		int rc = grammar_value_take(rest, &value, reason);
		if (rc == 0)
			rc = grammar_option_once(option_names, name, &seen, reason);
		if (rc == 0)
			rc = option_set(r, name, value, reason);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int rule_parse(struct span rest, struct abuse_rule *r, struct sbuf *reason)
{
	int last = ABUSE_NONE;
	if (rest.len > ABUSE_LINE_MAX) {
		sbuf_addf(reason, "a rule is longer than %d bytes", ABUSE_LINE_MAX);
		return ERR_LIMIT;
	}
	memcpy(r->source, rest.ptr, rest.len);
	int rc = scope_take(&rest, r, reason);
	if (rc == 0)
		rc = measure_take(&rest, r, reason);
	while (rc == 0) {
		rc = step_take(&rest, r, &last, reason);
		if (rc == 0 && !grammar_punct_take(&rest, SPAN_LIT(",")))
			break;
	}
	return rc < 0 ? rc : options_take(&rest, r, reason);
}

/* What is counted, as a number that stays the same across restarts. */
static uint64_t identity(const struct abuse_rule *r)
{
	static const struct hash_key fixed = {UINT64_C(0x706f737465726e21), UINT64_C(0x6162757365)};
	char mem[256];
	struct sbuf b;
	sbuf_init(&b, mem, sizeof(mem));
	sbuf_addf(&b, "%s %s %lld %lld %d/%d %d/%d", rule_scope_name(r->key.scope), measure_names[r->measure],
		  (long long)r->length_ms, (long long)r->memory_ms, r->key.ipv4_prefix, r->key.ipv6_prefix,
		  r->ipv4_prefix, r->ipv6_prefix);
	return hash_siphash(&fixed, sbuf_span(&b));
}

int abuse_rules_add(struct abuse_rules *rules, struct span text, struct sbuf *reason)
{
	struct abuse_rule r = {.memory_ms = MEMORY_DEFAULT_MS, .minimum = MINIMUM_DEFAULT, .throttle = THROTTLE_DEFAULT,
			       .throttle_ms = THROTTLE_DEFAULT_MS, .ipv4_prefix = 24, .ipv6_prefix = 48};
	int rc = rule_parse(span_trim(text), &r, reason);
	if (rc < 0)
		return rc;
	if (rules->count == ABUSE_RULES_MAX) {
		sbuf_addf(reason, "more than %d rules", ABUSE_RULES_MAX);
		return ERR_LIMIT;
	}
	r.id = identity(&r);
	for (size_t i = 0; i < rules->count; i++)
		if (rules->items[i].id == r.id) {
			sbuf_adds(reason, "another rule counts the same things over the same window");
			return ERR_EXISTS;
		}
	rules->items[rules->count++] = r;
	return 0;
}
