/*
 * Replays the transcripts of tests/replay/policyd against the decision core
 * with a fake clock.  A transcript is made of lines:
 *
 *   limit TEXT | allow TEXT | block SCOPE KEY | override SCOPE KEY UNIT MAX LENGTH_S
 *   rules                       the limits given since the start take effect (a reload)
 *   + 90s                       time passes
 *   wall -86400s                the wall clock is set; nothing may change
 *   close CONN                  the connection ends
 *   CONN STATE INSTANCE [attr=value ...] -> ACTION [text that the reply holds]
 *   used RULE SCOPE KEY N       what limit number RULE (from 0) counts for KEY in its first window
 *   open N                      open transactions
 *
 * client_address is 192.0.2.1 where it is not given.
 */
#include <check.h>
#include <glob.h>

#include "lib/base/num.h"
#include "policyd-ratelimit/session.h"
#include "tests/unit/runner.h"

#define CONNS 26

struct replay {
	const char *file;
	unsigned line;
	struct table *table;
	struct session session;
	struct rules *rules; /* being collected */
	bool running;
	struct session_client conns[CONNS];
	int64_t boot_ms, wall_ms;
};

static void broken(const struct replay *r, const char *what, struct span got)
{
	ck_abort_msg("%s:%u: %s: %.*s", r->file, r->line, what, SPAN_ARG(got));
}

static struct span word(struct span *rest)
{
	struct span head;
	*rest = span_trim(*rest);
	(void)span_cut(rest, ' ', &head);
	return head;
}

static void start(struct replay *r)
{
	if (r->rules == NULL)
		return;
	rules_seal(r->rules);
	r->rules->delimiter = '+';
	int rc = r->running ? session_set_rules(&r->session, r->rules)
			    : session_init(&r->session, r->table, r->rules, 64, 3600000);
	if (rc < 0)
		broken(r, "limits", SPAN_EMPTY);
	r->rules = NULL;
	r->running = true;
}

static void do_limit(struct replay *r, struct span text, bool allow)
{
	char mem[512];
	struct sbuf reason;
	sbuf_init(&reason, mem, sizeof(mem));
	if (r->rules == NULL)
		r->rules = rules_new();
	int rc = allow ? rules_add_allow(r->rules, text, &reason) : rules_add_limit(r->rules, text, &reason);
	if (rc < 0)
		broken(r, "refused", sbuf_span(&reason));
}

static uint64_t number(const struct replay *r, struct span text)
{
	uint64_t value = 0;
	if (num_parse_u64(text, UINT64_MAX, &value) < 0)
		broken(r, "number", text);
	return value;
}

static void do_override(struct replay *r, struct span rest)
{
	struct override o = {.action = PROTO_DEFER};
	struct span key;
	if (rule_scope_find(word(&rest), &o.scope) < 0)
		broken(r, "scope", rest);
	key = word(&rest);
	if (rule_unit_find(word(&rest), &o.unit) < 0)
		broken(r, "unit", rest);
	struct span max = word(&rest);
	o.max = span_eq(max, SPAN_LIT("none")) ? OVERRIDE_UNLIMITED : number(r, max);
	o.length_ms = (int64_t)number(r, word(&rest)) * 1000;
	struct overrides *all = overrides_new();
	if (overrides_add(all, &o, key) < 0)
		broken(r, "override", key);
	overrides_seal(all);
	ck_assert_uint_eq(session_set_overrides(&r->session, all), 0);
}

static void do_block(struct replay *r, struct span rest)
{
	enum rule_scope scope;
	if (rule_scope_find(word(&rest), &scope) < 0 ||
	    blocks_add(&r->session.blocks, scope, word(&rest)) < 0)
		broken(r, "block", rest);
}

static void do_used(struct replay *r, struct span rest)
{
	static struct subject subject;
	enum rule_scope scope;
	uint64_t hash, at = number(r, word(&rest));
	if (at >= r->session.rules->count || rule_scope_find(word(&rest), &scope) < 0 ||
	    subject_init_text(&subject, scope, word(&rest), '+') < 0)
		broken(r, "used", rest);
	const struct rule *rule = &r->session.rules->items[at];
	if (session_hash(&r->session, rule, &rule->windows[0], &subject, &hash) < 0)
		broken(r, "key", rest);
	uint64_t used = table_used(r->table, hash, rule->windows[0].class, r->boot_ms);
	if (used != number(r, word(&rest))) {
		char text[32];
		snprintf(text, sizeof(text), "%llu", (unsigned long long)used);
		broken(r, "counted", span_str(text));
	}
}

static void request_build(struct span state, struct span instance, struct span attrs, struct sbuf *b)
{
	bool has_client = span_find(attrs, SPAN_LIT("client_address=")) != SPAN_NPOS;
	sbuf_addf(b, "request=smtpd_access_policy\nprotocol_state=%.*s\ninstance=%.*s\n", SPAN_ARG(state),
		  SPAN_ARG(span_eq(instance, SPAN_LIT("-")) ? SPAN_EMPTY : instance));
	if (!has_client)
		sbuf_adds(b, "client_address=192.0.2.1\n");
	while ((attrs = span_trim(attrs)).len > 0) {
		sbuf_add(b, word(&attrs));
		sbuf_addc(b, '\n');
	}
	sbuf_addc(b, '\n');
}

static void do_request(struct replay *r, char conn, struct span rest)
{
	static struct proto_request request;
	char mem[4096], reply_mem[1024];
	struct sbuf b, reply;
	struct session_outcome outcome;
	size_t arrow = span_find(rest, SPAN_LIT("->"));
	if (arrow == SPAN_NPOS)
		broken(r, "no ->", rest);
	struct span left = span_take(rest, arrow), want = span_skip(rest, arrow + 2);
	struct span state = word(&left), instance = word(&left);
	sbuf_init(&b, mem, sizeof(mem));
	sbuf_init(&reply, reply_mem, sizeof(reply_mem));
	request_build(state, instance, left, &b);
	if (proto_request_parse(sbuf_span(&b), &request) < 0)
		broken(r, "request", sbuf_span(&b));
	session_request(&r->session, &r->conns[conn - 'A'], &request, r->boot_ms, r->wall_ms, &reply, &outcome);
	struct span action = word(&want);
	if (!span_eq(action, span_str(rule_action_name(outcome.action))) ||
	    span_find(sbuf_span(&reply), span_trim(want)) == SPAN_NPOS)
		broken(r, "reply", sbuf_span(&reply));
	/* Notes, trap 1: never OK, and a code never stands alone. */
	ck_assert(span_starts(sbuf_span(&reply), SPAN_LIT("action=DUNNO\n")) ||
		  span_starts(sbuf_span(&reply), SPAN_LIT("action=450 4.7.1 ")) ||
		  span_starts(sbuf_span(&reply), SPAN_LIT("action=550 5.7.1 ")) ||
		  span_starts(sbuf_span(&reply), SPAN_LIT("action=HOLD ")));
}

static void do_clock(struct replay *r, struct span text, int64_t *clock_ms)
{
	uint64_t ms = 0;
	bool back = span_starts(text, SPAN_LIT("-"));
	if (num_parse_duration(span_skip(text, back), UINT64_MAX / 2, &ms) < 0)
		broken(r, "duration", text);
	*clock_ms += back ? -(int64_t)ms : (int64_t)ms;
}

static void do_line(struct replay *r, struct span line)
{
	struct span rest = line, first = word(&rest);
	if (first.len == 0 || first.ptr[0] == '#')
		return;
	if (span_eq(first, SPAN_LIT("limit")) || span_eq(first, SPAN_LIT("allow"))) {
		do_limit(r, rest, first.ptr[0] == 'a');
		return;
	}
	start(r);
	if (span_eq(first, SPAN_LIT("rules"))) {
		return;
	} else if (span_eq(first, SPAN_LIT("+"))) {
		do_clock(r, span_trim(rest), &r->boot_ms);
		session_tick(&r->session, r->boot_ms);
	} else if (span_eq(first, SPAN_LIT("wall"))) {
		do_clock(r, span_trim(rest), &r->wall_ms);
	} else if (span_eq(first, SPAN_LIT("close"))) {
		session_client_done(&r->session, &r->conns[word(&rest).ptr[0] - 'A'], r->boot_ms);
	} else if (span_eq(first, SPAN_LIT("override"))) {
		do_override(r, rest);
	} else if (span_eq(first, SPAN_LIT("block"))) {
		do_block(r, rest);
	} else if (span_eq(first, SPAN_LIT("used"))) {
		do_used(r, rest);
	} else if (span_eq(first, SPAN_LIT("open"))) {
		if (r->session.txns.live.count != number(r, word(&rest)))
			broken(r, "open transactions", line);
	} else if (first.len == 1 && first.ptr[0] >= 'A' && first.ptr[0] <= 'Z') {
		do_request(r, first.ptr[0], rest);
	} else {
		broken(r, "unknown line", line);
	}
}

static void run_file(const char *path)
{
	static const struct hash_key key = {3, 4};
	static char content[65536];
	struct replay *r = mem_zalloc(sizeof(*r));
	FILE *f = fopen(path, "r");
	ck_assert_ptr_nonnull(f);
	struct span line, rest = span_of(content, fread(content, 1, sizeof(content), f));
	fclose(f);
	r->file = path;
	r->boot_ms = INT64_C(100000000000);
	r->wall_ms = INT64_C(1795305600000);
	r->table = table_new(&key, 64u << 20);
	while (rest.len > 0) {
		r->line++;
		(void)span_cut(&rest, '\n', &line);
		do_line(r, line);
	}
	ck_assert(r->running);
	session_done(&r->session);
	rules_free(&r->rules);
	table_free(&r->table);
	free(r);
}

START_TEST(transcripts)
{
	glob_t files;
	ck_assert_int_eq(glob("tests/replay/policyd/*.txt", 0, NULL, &files), 0);
	for (size_t i = 0; i < files.gl_pathc; i++)
		run_file(files.gl_pathv[i]);
	globfree(&files);
}
END_TEST

static const TTest *const *const tests[] = {&transcripts, NULL};

TEST_MAIN("policyd_replay", tests)
