/*
 * Parser of the limits.  A limit is built in a local struct and copied into
 * the set only when all of it is right, so a failure changes nothing.
 */
#include "rules.h"

#include "lib/base/num.h"
#include "lib/mail/dnsname.h"
#include "policyd-ratelimit/grammar.h"

static const char *const scope_names[] = {
	"client_ip", "client_net", "account", "sender", "sender_domain",
	"account_domain", "recipient", "recipient_domain", "global", NULL,
};
static const char *const unit_names[] = {"messages", "recipients", "bytes", NULL};
static const char *const option_names[] = {"shadow", "smooth", "burst", "text", "ipv4_prefix", "ipv6_prefix", NULL};
static const char *const action_names[] = {"DUNNO", "DEFER", "REJECT", "HOLD", NULL};

const char *rule_scope_name(enum rule_scope scope)
{
	return scope_names[scope];
}

const char *rule_unit_name(enum rule_unit unit)
{
	return unit_names[unit];
}

const char *rule_action_name(enum proto_action action)
{
	return action_names[action];
}

static int word_find(const char *const *names, struct span word)
{
	for (int i = 0; names[i] != NULL; i++)
		if (span_ieq(word, span_str(names[i])))
			return i;
	return ERR_NOT_FOUND;
}

int rule_scope_find(struct span name, enum rule_scope *scope_out)
{
	int at = word_find(scope_names, name);
	if (at < 0)
		return at;
	*scope_out = (enum rule_scope)at;
	return 0;
}

int rule_unit_find(struct span name, enum rule_unit *unit_out)
{
	int at = word_find(unit_names, name);
	if (at < 0)
		return at;
	*unit_out = (enum rule_unit)at;
	return 0;
}

int rule_action_find(struct span name, enum proto_action *action_out)
{
	int at = word_find(action_names, name);
	if (at <= PROTO_DUNNO)
		return ERR_NOT_FOUND;
	*action_out = (enum proto_action)at;
	return 0;
}

void rule_length_format(int64_t length_ms, struct sbuf *out)
{
	static const struct {
		int64_t ms;
		char letter;
	} units[] = {{86400000, 'd'}, {3600000, 'h'}, {60000, 'm'}, {1000, 's'}};
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (length_ms % units[i].ms == 0) {
			sbuf_addu(out, (uint64_t)(length_ms / units[i].ms));
			sbuf_addc(out, units[i].letter);
			return;
		}
	sbuf_addf(out, "%lldms", (long long)length_ms);
}

static int window_parse(struct span text, enum rule_unit unit, struct rule_window *w, struct sbuf *reason)
{
	struct span count, length = text;
	bool slash = span_cut(&length, '/', &count);
	int rc = unit == UNIT_BYTES ? num_parse_size(count, WINDOW_WIDE_MAX, &w->max)
				    : num_parse_u64(count, WINDOW_NARROW_MAX, &w->max);
	if (!slash || rc < 0) {
		sbuf_addf(reason, "`%.*s' is not COUNT/WINDOW with a count of at most %llu", SPAN_ARG(text),
			  (unsigned long long)(unit == UNIT_BYTES ? WINDOW_WIDE_MAX : WINDOW_NARROW_MAX));
		return ERR_SYNTAX;
	}
	return grammar_length_parse(length, &w->length_ms, reason);
}

static int windows_take(struct span *rest, struct rule *rule, struct sbuf *reason)
{
	do {
		if (rule->window_count == RULES_WINDOWS_MAX) {
			sbuf_addf(reason, "more than %d windows in one limit", RULES_WINDOWS_MAX);
			return ERR_LIMIT;
		}
		struct rule_window *w = &rule->windows[rule->window_count];
		int rc = window_parse(grammar_word_take(rest, ","), rule->unit, w, reason);
		if (rc < 0)
			return rc;
		for (size_t i = 0; i < rule->window_count; i++)
			if (rule->windows[i].length_ms == w->length_ms) {
				sbuf_adds(reason, "the same window twice in one limit");
				return ERR_SYNTAX;
			}
		rule->window_count++;
	} while (grammar_punct_take(rest, SPAN_LIT(",")));
	return 0;
}

static int condition_take(struct span *rest, struct rule *rule, struct sbuf *reason)
{
	struct span value, name = grammar_word_take(rest, "=!");
	bool negated = grammar_punct_take(rest, SPAN_LIT("!="));
	if (name.len == 0 || (!negated && !grammar_punct_take(rest, SPAN_LIT("=")))) {
		sbuf_adds(reason, "`when' wants ATTRIBUTE=VALUE or ATTRIBUTE!=VALUE");
		return ERR_SYNTAX;
	}
	if (rule->condition_count == RULES_CONDITIONS_MAX) {
		sbuf_addf(reason, "more than %d conditions in one limit", RULES_CONDITIONS_MAX);
		return ERR_LIMIT;
	}
	int rc = grammar_value_take(rest, &value, reason);
	if (rc < 0)
		return rc;
	struct rule_condition *c = &rule->conditions[rule->condition_count++];
	*c = (struct rule_condition){.name = span_dup(name), .value = span_dup(value),
				     .attr = proto_attr_find(name), .negated = negated};
	rule->by_recipient = rule->by_recipient || c->attr == PROTO_RECIPIENT;
	return 0;
}

/* Only known placeholders, and what the reply's encoder will take. */
static int text_check(struct span text, struct sbuf *reason)
{
	static const char *const known[] = {"limit", "key", "wait", "until", NULL};
	char mem[PROTO_TEXT_MAX + 64];
	struct sbuf trial;
	sbuf_init(&trial, mem, sizeof(mem));
	if (text.len > RULES_TEXT_MAX || proto_reply_add(PROTO_DEFER, text, &trial) < 0) {
		sbuf_addf(reason, "a text is 1 to %d bytes of printable UTF-8", RULES_TEXT_MAX);
		return ERR_SYNTAX;
	}
	for (struct span rest = text, head; span_cut(&rest, '{', &head);) {
		if (!span_cut(&rest, '}', &head) || word_find(known, head) < 0) {
			sbuf_adds(reason, "a text may hold {limit}, {key}, {wait} and {until} only");
			return ERR_SYNTAX;
		}
	}
	return 0;
}

static int burst_parse(struct span value, struct rule *rule, struct sbuf *reason)
{
	int rc = rule->unit == UNIT_BYTES ? num_parse_size(value, WINDOW_WIDE_MAX, &rule->burst)
					  : num_parse_u64(value, WINDOW_NARROW_MAX, &rule->burst);
	if (rc == 0 && rule->burst > 0)
		return 0;
	sbuf_addf(reason, "`%.*s' is no burst", SPAN_ARG(value));
	return ERR_SYNTAX;
}

static uint64_t round_up(uint64_t value, uint64_t by)
{
	return value / by + (value % by != 0);
}

/* The time in which BURST events may pass at the rate of W, in whole seconds;
 * products stay below 2^57 * 2^35. */
static int64_t burst_length_ms(const struct rule_window *w, uint64_t burst)
{
	unsigned __int128 ms = ((unsigned __int128)burst * (uint64_t)w->length_ms + w->max - 1) / w->max;
	return (int64_t)(round_up((uint64_t)ms, 1000) * 1000);
}

/* The smallest burst that takes as long as a window must be, and a tenth of the count at least. */
static uint64_t burst_default(const struct rule_window *w)
{
	unsigned __int128 least = (unsigned __int128)WINDOW_LENGTH_MIN_MS * w->max / (uint64_t)w->length_ms + 1;
	uint64_t tenth = round_up(w->max, 10);
	return least > tenth ? (uint64_t)least : tenth;
}

/* Adds the window that spreads what the first one allows. */
static int smooth_add(struct rule *rule, struct sbuf *reason)
{
	const struct rule_window *w = &rule->windows[0];
	if (!rule->smooth && rule->burst == 0)
		return 0;
	if (!rule->smooth) {
		sbuf_adds(reason, "`burst' belongs to smooth = yes");
		return ERR_SYNTAX;
	}
	if (rule->window_count == RULES_WINDOWS_MAX) {
		sbuf_addf(reason, "more than %d windows in one limit, with that of smooth", RULES_WINDOWS_MAX);
		return ERR_LIMIT;
	}
	uint64_t burst = rule->burst != 0 || w->max == 0 ? rule->burst : burst_default(w);
	if (burst >= w->max) {
		sbuf_adds(reason, "a burst must be below the count that is smoothed");
		return ERR_SYNTAX;
	}
	int64_t length_ms = burst_length_ms(w, burst);
	if (length_ms < WINDOW_LENGTH_MIN_MS) {
		sbuf_addf(reason, "a burst of %llu passes in less than 5s at that rate", (unsigned long long)burst);
		return ERR_SYNTAX;
	}
	rule->windows[rule->window_count++] = (struct rule_window){.max = burst, .length_ms = length_ms, .smooth = true};
	return 0;
}

static int option_set(struct rule *rule, struct span name, struct span value, struct sbuf *reason)
{
	bool is_client = rule->scope == SCOPE_CLIENT_IP || rule->scope == SCOPE_CLIENT_NET;
	if (span_ieq(name, SPAN_LIT("shadow"))) {
		rule->shadow = span_ieq(value, SPAN_LIT("yes"));
		if (rule->shadow || span_ieq(value, SPAN_LIT("no")))
			return 0;
		sbuf_adds(reason, "shadow is yes or no");
		return ERR_SYNTAX;
	}
	if (span_ieq(name, SPAN_LIT("smooth"))) {
		rule->smooth = span_ieq(value, SPAN_LIT("yes"));
		if (rule->smooth || span_ieq(value, SPAN_LIT("no")))
			return 0;
		sbuf_adds(reason, "smooth is yes or no");
		return ERR_SYNTAX;
	}
	if (span_ieq(name, SPAN_LIT("burst")))
		return burst_parse(value, rule, reason);
	if (span_ieq(name, SPAN_LIT("text"))) {
		int rc = text_check(value, reason);
		if (rc < 0)
			return rc;
		rule->text = span_dup(value);
		return 0;
	}
	if (is_client && span_ieq(name, SPAN_LIT("ipv4_prefix")))
		return grammar_prefix_parse(value, 32, &rule->ipv4_prefix, reason);
	if (is_client && span_ieq(name, SPAN_LIT("ipv6_prefix")))
		return grammar_prefix_parse(value, 128, &rule->ipv6_prefix, reason);
	sbuf_addf(reason, "`%.*s' is no option of a limit for %s", SPAN_ARG(name), scope_names[rule->scope]);
	return ERR_SYNTAX;
}

static int options_take(struct span *rest, struct rule *rule, struct sbuf *reason)
{
	if (rule_action_find(grammar_word_take(&(struct span){rest->ptr, rest->len}, "="), &rule->action) == 0)
		(void)grammar_word_take(rest, "=");
	unsigned seen = 0;
	for (*rest = span_trim(*rest); rest->len > 0; *rest = span_trim(*rest)) {
		struct span value, name = grammar_word_take(rest, "=!,\"");
		int rc;
		if (span_ieq(name, SPAN_LIT("when"))) {
			rc = condition_take(rest, rule, reason);
		} else if (name.len > 0 && grammar_punct_take(rest, SPAN_LIT("="))) {
			rc = grammar_value_take(rest, &value, reason);
			if (rc == 0)
				rc = grammar_option_once(option_names, name, &seen, reason);
			if (rc == 0)
				rc = option_set(rule, name, value, reason);
		} else {
			sbuf_addf(reason, "`%.*s' is neither an action nor an option",
				  SPAN_ARG(name.len > 0 ? name : *rest));
			rc = ERR_SYNTAX;
		}
		if (rc < 0)
			return rc;
	}
	return 0;
}

static void rule_done(struct rule *rule)
{
	for (size_t i = 0; i < rule->condition_count; i++) {
		free(rule->conditions[i].name);
		free(rule->conditions[i].value);
	}
	free(rule->text);
	free(rule->source);
}

/* What is counted, as bytes that stay the same across restarts and versions. */
static void identify_windows(struct rule *rule)
{
	static const struct hash_key fixed = {UINT64_C(0x706f737465726e21), UINT64_C(0x72617465)};
	struct sbuf b;
	sbuf_init_heap(&b, 2 * RULES_LINE_MAX);
	sbuf_addf(&b, "%s %s %d/%d %d", scope_names[rule->scope], unit_names[rule->unit],
		  rule->ipv4_prefix, rule->ipv6_prefix, rule->shadow);
	for (size_t i = 0; i < rule->condition_count; i++) {
		const struct rule_condition *c = &rule->conditions[i];
		sbuf_addf(&b, " %s%s\"%s\"", c->name, c->negated ? "!=" : "=", c->value);
	}
	size_t common = b.len;
	for (size_t i = 0; i < rule->window_count; i++) {
		sbuf_truncate(&b, common);
		sbuf_addf(&b, " %lld%s", (long long)rule->windows[i].length_ms, rule->windows[i].smooth ? " smooth" : "");
		rule->windows[i].id = hash_siphash(&fixed, sbuf_span(&b));
	}
	sbuf_done(&b);
}

static void prefixes_set(struct rule *rule)
{
	rule->ipv4_prefix = rule->scope == SCOPE_CLIENT_NET ? 24 : 32;
	rule->ipv6_prefix = rule->scope == SCOPE_CLIENT_NET ? 48 : 64;
}

static int limit_parse(struct span rest, struct rule *rule, struct sbuf *reason)
{
	if (rest.len > RULES_LINE_MAX) {
		sbuf_addf(reason, "a limit is longer than %d bytes", RULES_LINE_MAX);
		return ERR_LIMIT;
	}
	struct span word = grammar_word_take(&rest, "");
	if (rule_scope_find(word, &rule->scope) < 0) {
		sbuf_addf(reason, "`%.*s' is no scope", SPAN_ARG(word));
		return ERR_SYNTAX;
	}
	word = grammar_word_take(&rest, "");
	if (rule_unit_find(word, &rule->unit) < 0) {
		sbuf_addf(reason, "`%.*s' is no unit", SPAN_ARG(word));
		return ERR_SYNTAX;
	}
	rule->action = PROTO_DEFER;
	rule->by_recipient = rule_scope_is_recipient(rule->scope);
	prefixes_set(rule);
	int rc = windows_take(&rest, rule, reason);
	if (rc == 0)
		rc = options_take(&rest, rule, reason);
	return rc < 0 ? rc : smooth_add(rule, reason);
}

static bool window_is_taken(const struct rules *rules, const struct rule *rule)
{
	for (size_t i = 0; i < rules->count; i++)
		for (size_t j = 0; j < rules->items[i].window_count; j++)
			for (size_t k = 0; k < rule->window_count; k++)
				if (rules->items[i].windows[j].id == rule->windows[k].id)
					return true;
	return false;
}

int rules_add_limit(struct rules *rules, struct span text, struct sbuf *reason)
{
	struct rule rule = {0};
	int rc = limit_parse(text, &rule, reason);
	if (rc == 0 && rules->count == RULES_MAX) {
		sbuf_addf(reason, "more than %d limits", RULES_MAX);
		rc = ERR_LIMIT;
	}
	if (rc == 0) {
		identify_windows(&rule);
		if (window_is_taken(rules, &rule)) {
			sbuf_adds(reason, "another limit counts the same things over the same window");
			rc = ERR_EXISTS;
		}
	}
	if (rc < 0) {
		rule_done(&rule);
		return rc;
	}
	rule.source = span_dup(span_trim(text));
	rules->items[rules->count++] = rule;
	rules->scopes |= 1u << rule.scope;
	return 0;
}

static bool window_is_there(const struct rules *rules, enum rule_scope scope, enum rule_unit unit, int64_t length_ms)
{
	for (size_t i = 0; i < rules->count; i++)
		for (size_t j = 0; j < rules->items[i].window_count; j++)
			if (rules->items[i].scope == scope && rules->items[i].unit == unit &&
			    rules->items[i].windows[j].length_ms == length_ms && !rules->items[i].windows[j].smooth)
				return true;
	return false;
}

int rules_add_extra(struct rules *rules, enum rule_scope scope, enum rule_unit unit, int64_t length_ms)
{
	char mem[128];
	struct sbuf source;
	if (window_is_there(rules, scope, unit, length_ms))
		return ERR_EXISTS;
	if (rules->extra_count == RULES_EXTRA_MAX)
		return ERR_LIMIT;
	struct rule rule = {.scope = scope, .unit = unit, .action = PROTO_DEFER, .extra = true, .window_count = 1,
			    .by_recipient = rule_scope_is_recipient(scope)};
	prefixes_set(&rule);
	rule.windows[0].length_ms = length_ms;
	identify_windows(&rule);
	sbuf_init(&source, mem, sizeof(mem));
	sbuf_addf(&source, "%s %s in ", scope_names[scope], unit_names[unit]);
	rule_length_format(length_ms, &source);
	sbuf_adds(&source, ", for keys in rate_limits only");
	rule.source = span_dup(sbuf_span(&source));
	rules->items[rules->count++] = rule;
	rules->extra_count++;
	rules->scopes |= 1u << scope;
	return 0;
}

void rules_drop_extra(struct rules *rules, bool all)
{
	while (rules->extra_count > 0) {
		rule_done(&rules->items[--rules->count]);
		rules->extra_count--;
		if (!all)
			break;
	}
	rules->scopes = 0;
	for (size_t i = 0; i < rules->count; i++)
		rules->scopes |= 1u << rules->items[i].scope;
}

static int allow_account_add(struct rules *rules, struct span account, struct sbuf *reason)
{
	struct sbuf b;
	void *old = NULL;
	sbuf_init_heap(&b, RULES_LINE_MAX);
	sbuf_add_lower(&b, account);
	char *key = span_dup(sbuf_span(&b));
	sbuf_done(&b);
	if (account.len == 0 || htab_get(&rules->allow_accounts, span_str(key)) != NULL) {
		free(key);
		if (account.len > 0)
			return 0;
		sbuf_adds(reason, "`account:' without a name");
		return ERR_SYNTAX;
	}
	if (htab_put(&rules->allow_accounts, span_str(key), key, &old) < 0) {
		free(key);
		sbuf_addf(reason, "more than %d accounts", RULES_ALLOW_MAX);
		return ERR_LIMIT;
	}
	return 0;
}

static int allow_spf_add(struct rules *rules, struct span domain, struct sbuf *reason)
{
	domain = dnsname_trim(domain);
	bool ascii = true;
	for (size_t i = 0; i < domain.len; i++)
		ascii = ascii && (unsigned char)domain.ptr[i] < 0x80;
	if (!ascii || !dnsname_mail_valid(domain)) {
		sbuf_adds(reason, "`spf:' without the name of a domain (in A-labels)");
		return ERR_SYNTAX;
	}
	for (size_t i = 0; i < rules->spf_count; i++)
		if (span_ieq(span_str(rules->spf_domains[i]), domain))
			return 0;
	if (rules->spf_count == RULES_SPF_MAX) {
		sbuf_addf(reason, "more than %d domains under spf:", RULES_SPF_MAX);
		return ERR_LIMIT;
	}
	char *name = span_dup(domain);
	for (char *c = name; *c != '\0'; c++)
		*c = ascii_lower(*c);
	rules->spf_domains[rules->spf_count++] = name;
	return 0;
}

int rules_add_allow(struct rules *rules, struct span text, struct sbuf *reason)
{
	for (;;) {
		struct ip_net net;
		struct span word = grammar_word_take(&text, ",");
		int rc = 0;
		if (span_istarts(word, SPAN_LIT("account:"))) {
			rc = allow_account_add(rules, span_skip(word, 8), reason);
		} else if (span_istarts(word, SPAN_LIT("spf:"))) {
			rc = allow_spf_add(rules, span_skip(word, 4), reason);
		} else if (ip_net_parse(word, &net) < 0) {
			sbuf_addf(reason, "`%.*s' is neither a network nor account:NAME nor spf:DOMAIN", SPAN_ARG(word));
			rc = ERR_SYNTAX;
		} else if (netmap_add(&rules->allow_nets, &net, 1) < 0) {
			sbuf_addf(reason, "more than %d networks", RULES_ALLOW_MAX);
			rc = ERR_LIMIT;
		}
		if (rc < 0)
			return rc;
		(void)grammar_punct_take(&text, SPAN_LIT(","));
		if (span_trim(text).len == 0)
			return 0;
	}
}

struct rules *rules_new(void)
{
	struct rules *rules = mem_zalloc(sizeof(*rules));
	netmap_init(&rules->allow_nets, RULES_ALLOW_MAX);
	htab_init(&rules->allow_accounts, RULES_ALLOW_MAX);
	return rules;
}

void rules_seal(struct rules *rules)
{
	netmap_seal(&rules->allow_nets);
}

void rules_set_spf(struct rules *rules, struct netmap *nets)
{
	netmap_done(&rules->spf_nets);
	rules->spf_nets = *nets;
	*nets = (struct netmap){0};
}

void rules_free(struct rules **rules)
{
	if (*rules == NULL)
		return;
	for (size_t i = 0; i < (*rules)->count; i++)
		rule_done(&(*rules)->items[i]);
	netmap_done(&(*rules)->allow_nets);
	htab_done(&(*rules)->allow_accounts, free);
	for (size_t i = 0; i < (*rules)->spf_count; i++)
		free((*rules)->spf_domains[i]);
	netmap_done(&(*rules)->spf_nets);
	free(*rules);
	*rules = NULL;
}

bool rule_conditions_hold(const struct rule *rule, const struct proto_request *request)
{
	for (size_t i = 0; i < rule->condition_count; i++) {
		const struct rule_condition *c = &rule->conditions[i];
		struct span value = c->attr >= 0 ? request->attr[c->attr] : proto_request_attr(request, span_str(c->name));
		if (span_ieq(value, span_str(c->value)) == c->negated)
			return false;
	}
	return true;
}
