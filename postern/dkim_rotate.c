/*
 * `dkim rotate`: each run takes every key as far as it may go and says what it
 * waits for.  All that a later run must know is in dkim_keys, every step is one
 * statement or one transaction, and a lock in SQL lets one run work at a time: so
 * an end in mid-work costs nothing but the work.
 */
#include <stdio.h>
#include <time.h>

#include "lib/run/conf.h"
#include "lib/run/db.h"
#include "postern/commands.h"
#include "postern/dkim_store.h"
#include "postern/dkim_visible.h"
#include "postern/lookup.h"
#include "postern/rotation.h"

#define RSA_BITS 2048
#define SELECTOR_TRIES 99
#define ALGORITHMS 2 /* rsa, ed25519 */

struct rotating {
	struct cli *cli;
	struct rotation_rules rules;
	struct dkim_servers *servers;
	bool asked; /* for one domain: a new key is made although none is due */
	bool dry_run;
	int64_t now;
	json_t *steps;
	/* of the domain in hand */
	const char *domain;
	json_t *keys;
};

static const char *text_of(const json_t *key, const char *name)
{
	const char *text = json_string_value(json_object_get(key, name));
	return text == NULL ? "" : text;
}

static int64_t time_of(const json_t *key, const char *name)
{
	return json_integer_value(json_object_get(key, name));
}

static bool is_ed25519(const json_t *key)
{
	return strcmp(text_of(key, "algorithm"), dkim_algorithm_name(true)) == 0;
}

/* The first key of that kind and state, or NULL; the newest stand first. */
static const json_t *key_in(const struct rotating *r, bool ed25519, const char *state)
{
	size_t i;
	json_t *key;
	json_array_foreach(r->keys, i, key)
		if (is_ed25519(key) == ed25519 && strcmp(text_of(key, "state"), state) == 0)
			return key;
	return NULL;
}

/* Notes one line of the report.  UNTIL is when what it waits for is over, or 0; a
 * record is shown where PUBLIC_KEY is there. */
static void report(struct rotating *r, const char *selector, bool ed25519, const char *state, const char *action,
		   const char *waits_for, int64_t until, const char *public_key)
{
	json_t *step = json_object();
	json_object_set_new(step, "domain", json_string(r->domain));
	json_object_set_new(step, "selector", json_string(selector));
	json_object_set_new(step, "algorithm", json_string(dkim_algorithm_name(ed25519)));
	json_object_set_new(step, "state", json_string(state));
	json_object_set_new(step, "action", json_string(action));
	json_object_set_new(step, "waits_for", waits_for == NULL ? json_null() : json_string(waits_for));
	json_object_set_new(step, "until", until == 0 ? json_null() : json_integer(until));
	if (public_key != NULL) {
		struct dkim_record record;
		dkim_record_init(&record, r->domain, selector, ed25519, span_str(public_key));
		json_object_set_new(step, "record_name", json_string(sbuf_cstr(&record.name)));
		json_object_set_new(step, "record_value", json_string(sbuf_cstr(&record.value)));
		json_object_set_new(step, "zone", json_string(sbuf_cstr(&record.zone)));
		dkim_record_done(&record);
	}
	json_array_append_new(r->steps, step);
}

static void report_key(struct rotating *r, const json_t *key, const char *state, const char *action,
		       const char *waits_for, int64_t until, bool with_record)
{
	report(r, text_of(key, "selector"), is_ed25519(key), state, action, waits_for, until,
	       with_record ? text_of(key, "public_key") : NULL);
}

/* A pending key that waits for WHAT, because of PROBLEM. */
static void report_problem(struct rotating *r, const json_t *key, const char *what, const char *problem, bool with_record)
{
	char text[512];
	snprintf(text, sizeof(text), "%s (%s)", what, problem);
	report_key(r, key, "pending", "none", text, 0, with_record);
}

/* One statement about one key, unless nothing is to be changed; *DONE_OUT where the
 * key was changed. */
static int change(struct rotating *r, const json_t *key, const char *sql, int64_t value, bool *done_out)
{
	const struct db_param params[] = {DB_P_INT(value), DB_P_INT(time_of(key, "id"))};
	*done_out = r->dry_run;
	if (r->dry_run)
		return EX_OK;
	int rc = db_exec(r->cli->db, sql, params, 2);
	*done_out = rc == 0 && db_affected(r->cli->db) > 0;
	return rc < 0 ? cli_fail_db(r->cli, rc) : EX_OK;
}

/* Somebody else was at work while the DNS was asked. */
static int overtaken(struct rotating *r, const json_t *key)
{
	report_key(r, key, text_of(key, "state"), "none", "the next run: the key was changed meanwhile", 0, false);
	return EX_OK;
}

/* Begins a transaction in which KEY stays as it was read; *SAME_OUT is false where it is
 * no longer so. */
static int begin_with(struct rotating *r, const json_t *key, bool *same_out)
{
	const struct db_param params[] = {DB_P_INT(time_of(key, "id")), DB_P_STR(text_of(key, "state"))};
	uint64_t id;
	int rc = db_begin(r->cli->db);
	if (rc == 0)
		rc = db_query_u64(r->cli->db, "SELECT id FROM dkim_keys WHERE id = ? AND state = ? FOR UPDATE", params, 2, &id);
	*same_out = rc == 0;
	return rc < 0 && rc != ERR_NOT_FOUND ? cli_fail_db(r->cli, rc) : EX_OK;
}

/* Ends the transaction, well or not; the status of both. */
static int finish(struct rotating *r, int status)
{
	int rc = status == EX_OK ? db_commit(r->cli->db) : 0;
	if (rc < 0)
		status = cli_fail_db(r->cli, rc);
	if (status != EX_OK)
		db_rollback(r->cli->db);
	return status;
}

static bool selector_is_taken(const struct rotating *r, const char *selector)
{
	size_t i;
	json_t *key;
	json_array_foreach(r->keys, i, key)
		if (strcmp(text_of(key, "selector"), selector) == 0)
			return true;
	return false;
}

static int new_selector(const struct rotating *r, bool ed25519, char out[LOOKUP_NAME_SIZE])
{
	const char *prefix = conf_get_string(r->cli->conf, r->cli->config, "dkim_selector");
	char mem[512];
	struct sbuf text, name, error;
	unsigned try = 0;
	do {
		sbuf_init(&text, mem, sizeof(mem));
		rotation_selector(&text, prefix, ed25519, r->now, ++try);
	} while (selector_is_taken(r, sbuf_cstr(&text)) && try < SELECTOR_TRIES);
	char why[256];
	sbuf_init(&name, out, LOOKUP_NAME_SIZE);
	sbuf_init(&error, why, sizeof(why));
	if (names_selector(sbuf_span(&text), &name, &error) < 0)
		return cli_fail(r->cli, EX_CONFIG, "dkim_selector: %s", sbuf_cstr(&error));
	return EX_OK;
}

/* The successor of OLD, which may be NULL; it is no smaller. */
static int make_key(struct rotating *r, bool ed25519, const json_t *old)
{
	char selector[LOOKUP_NAME_SIZE];
	struct keys_pair pair;
	bool same = true;
	int64_t bits = old == NULL ? 0 : time_of(old, "key_bits");
	int status = new_selector(r, ed25519, selector);
	if (status != EX_OK)
		return status;
	if (r->dry_run) {
		report(r, selector, ed25519, "pending", "would be made", NULL, 0, NULL);
		return EX_OK;
	}
	if (keys_make(ed25519, bits <= RSA_BITS ? RSA_BITS : bits > KEYS_RSA_BITS_MAX ? KEYS_RSA_BITS_MAX : (unsigned)bits,
		      &pair) < 0)
		return cli_fail(r->cli, EX_SOFTWARE, "OpenSSL makes no key");
	if (old != NULL)
		status = begin_with(r, old, &same);
	if (status == EX_OK && same)
		status = dkim_store_insert(r->cli, r->domain, selector, ed25519, &pair);
	if (old != NULL)
		status = finish(r, status);
	if (status == EX_OK && !same)
		status = overtaken(r, old);
	else if (status == EX_OK)
		report(r, selector, ed25519, "pending", "made", "its record in DNS", 0, sbuf_cstr(&pair.public_base64));
	keys_done(&pair);
	return status;
}

static int activate(struct rotating *r, const json_t *key)
{
	if (r->dry_run) {
		report_key(r, key, "pending", "would be activated", NULL, 0, false);
		return EX_OK;
	}
	bool same;
	int status = begin_with(r, key, &same);
	if (status == EX_OK && same)
		status = dkim_store_activate(r->cli, r->domain, text_of(key, "selector"));
	status = finish(r, status);
	if (status == EX_OK && !same)
		return overtaken(r, key);
	if (status == EX_OK)
		report_key(r, key, "active", "activated", NULL, 0, false);
	return status;
}

/* The record is not there as it should be: what was seen of it before is void. */
static int not_visible(struct rotating *r, const json_t *key, const struct dkim_visibility *v)
{
	int status = EX_OK;
	bool done;
	/* A server that does not answer says nothing about the record. */
	if (v->state != KEYCHECK_TEMPERROR && time_of(key, "visible_at") != 0)
		status = change(r, key, "UPDATE dkim_keys SET visible_at = IF(? = 0, NULL, visible_at) WHERE id = ?", 0, &done);
	int64_t until = time_of(key, "absent_until");
	if (status == EX_OK && v->absent_s > 0 && (r->now + v->absent_s > until || until > r->now + ROTATION_ABSENT_MAX_S))
		status = change(r, key, "UPDATE dkim_keys SET absent_until = FROM_UNIXTIME(?) WHERE id = ?",
				r->now + v->absent_s, &done);
	if (status == EX_OK)
		report_problem(r, key, "its record in DNS", v->problem, true);
	return status;
}

static int go_on_with_pending(struct rotating *r, const json_t *key)
{
	struct crypto_key *parsed;
	struct dkim_visibility v;
	int rc = crypto_private_new(span_str(text_of(key, "private_key")), &parsed);
	if (rc < 0) {
		report_problem(r, key, "a key that can be used", crypto_private_problem(rc), false);
		return EX_OK;
	}
	dkim_servers_check(r->servers, r->domain, text_of(key, "selector"), parsed, &v);
	crypto_key_unref(&parsed);
	if (v.state != KEYCHECK_OK)
		return not_visible(r, key, &v);
	int64_t visible_at = rotation_visible_since(time_of(key, "visible_at"), r->now);
	bool first = visible_at != time_of(key, "visible_at"), done = true;
	int status = EX_OK;
	if (first)
		status = change(r, key, "UPDATE dkim_keys SET visible_at = FROM_UNIXTIME(?) WHERE id = ? AND state = 'pending'",
				visible_at, &done);
	if (status != EX_OK || !done)
		return status != EX_OK ? status : overtaken(r, key);
	int64_t at = rotation_activate_at(&r->rules, visible_at, time_of(key, "absent_until"), r->now);
	if (r->now >= at)
		return activate(r, key);
	report_key(r, key, "pending", first ? "seen in DNS" : "none", "the time in which resolvers may not know its record yet",
		   at, false);
	return EX_OK;
}

static int retire(struct rotating *r, const json_t *key)
{
	int64_t at = rotation_retire_at(&r->rules, time_of(key, "retiring_at"));
	if (r->now < at) {
		report_key(r, key, "retiring", "none", "mail that is under way", at, false);
		return EX_OK;
	}
	bool done;
	int status = change(r, key,
			    "UPDATE dkim_keys SET state = 'retired', retired_at = FROM_UNIXTIME(?) "
			    "WHERE id = ? AND state = 'retiring'",
			    r->now, &done);
	if (status == EX_OK && !done)
		status = overtaken(r, key);
	else if (status == EX_OK && r->dry_run)
		report_key(r, key, "retiring", "would be retired", NULL, 0, false);
	else if (status == EX_OK) /* An empty p= revokes it (RFC 6376 section 3.6.1). */
		report(r, text_of(key, "selector"), is_ed25519(key), "retired", "retired",
		       "its record to be taken out of DNS, or revoked as shown", 0, "");
	return status;
}

static int retire_all(struct rotating *r, bool ed25519)
{
	size_t i;
	json_t *key;
	int status = EX_OK;
	json_array_foreach(r->keys, i, key)
		if (status == EX_OK && is_ed25519(key) == ed25519 && strcmp(text_of(key, "state"), "retiring") == 0)
			status = retire(r, key);
	return status;
}

/* Begins a rotation where one is due, or asked for and none is under way. */
static int start(struct rotating *r, bool ed25519)
{
	const json_t *active = key_in(r, ed25519, "active");
	bool under_way = key_in(r, ed25519, "retiring") != NULL;
	if (r->asked && !under_way)
		return make_key(r, ed25519, active);
	if (active == NULL)
		return EX_OK;
	int64_t at = rotation_start_at(&r->rules, time_of(active, "activated_at"));
	if (at != 0 && r->now >= at)
		return make_key(r, ed25519, active);
	if (under_way)
		report_key(r, active, "active", "none", "its predecessor to be retired", 0, false);
	else
		report_key(r, active, "active", "none", at == 0 ? NULL : "its age", at, false);
	return EX_OK;
}

/* Whether keys of that kind are rotated at all. */
static bool takes_part(const struct rotating *r, bool ed25519)
{
	const char *wanted = cli_option(r->cli, "algorithm");
	if (wanted != NULL)
		return (strcmp(wanted, "ed25519") == 0) == ed25519;
	bool some = false;
	for (int kind = 0; kind < ALGORITHMS; kind++) {
		bool has = key_in(r, kind, "pending") || key_in(r, kind, "active") || key_in(r, kind, "retiring");
		if (kind == ed25519 && has)
			return true;
		some = some || has;
	}
	/* The first key of a domain is RSA. */
	return !some && !ed25519 && r->asked;
}

/* A name that is mistyped gets no key: the first one is made for a domain of ours only, or where it is said
 * that it need not be one. */
static int check_hosted(struct rotating *r)
{
	uint64_t id;
	size_t i;
	json_t *key;
	json_array_foreach(r->keys, i, key)
		if (strcmp(text_of(key, "state"), "retired") != 0)
			return EX_OK;
	return !r->asked || cli_has(r->cli, "unhosted") ? EX_OK : lookup_domain_id(r->cli, r->domain, &id);
}

static int rotate_domain(struct rotating *r, const char *domain)
{
	static const char *const columns[] = {
		"id#", "selector", "algorithm", "state", "private_key", "public_key", "visible_at#", "absent_until#",
		"activated_at#", "retiring_at#", "key_bits#", NULL};
	const struct db_param param = DB_P_STR(domain);
	r->domain = domain;
	int status = lookup_rows(r->cli,
				 "SELECT id, selector, algorithm, state, private_key, public_key, "
				 "IFNULL(UNIX_TIMESTAMP(visible_at), 0), IFNULL(UNIX_TIMESTAMP(absent_until), 0), "
				 "IFNULL(UNIX_TIMESTAMP(activated_at), 0), IFNULL(UNIX_TIMESTAMP(retiring_at), 0), key_bits "
				 "FROM dkim_keys WHERE domain = ? ORDER BY id DESC",
				 &param, 1, columns, &r->keys);
	if (status == EX_OK)
		status = check_hosted(r);
	for (int ed25519 = 0; ed25519 < ALGORITHMS && status == EX_OK; ed25519++) {
		if (!takes_part(r, ed25519))
			continue;
		const json_t *pending = key_in(r, ed25519, "pending");
		status = pending != NULL ? go_on_with_pending(r, pending) : start(r, ed25519);
		if (status == EX_OK)
			status = retire_all(r, ed25519);
	}
	json_decref(r->keys);
	r->keys = NULL;
	return status;
}

static int rotate_all(struct rotating *r)
{
	static const char *const columns[] = {"domain", NULL};
	json_t *domains, *row;
	size_t i;
	int status = lookup_rows(r->cli, "SELECT DISTINCT domain FROM dkim_keys WHERE state <> 'retired' ORDER BY domain",
				 NULL, 0, columns, &domains);
	if (status != EX_OK)
		return status;
	json_array_foreach(domains, i, row)
		if (status == EX_OK)
			status = rotate_domain(r, text_of(row, "domain"));
	json_decref(domains);
	return status;
}

static int take_lock(struct cli *cli)
{
	uint64_t got = 0;
	int rc = db_query_u64(cli->db, "SELECT GET_LOCK(CONCAT('postern-rotate-', LEFT(MD5(DATABASE()), 16)), 0)", NULL, 0,
			      &got);
	if (rc < 0 && rc != ERR_NOT_FOUND)
		return cli_fail_db(cli, rc);
	return got == 1 ? EX_OK : cli_fail(cli, EX_TEMPFAIL, "another rotation of keys is under way");
}

static int read_now(struct rotating *r)
{
	uint64_t now = 0;
	int rc = db_query_u64(r->cli->db, "SELECT UNIX_TIMESTAMP()", NULL, 0, &now);
	r->now = (int64_t)now;
	return rc < 0 ? cli_fail_db(r->cli, rc) : EX_OK;
}

static void print_step(FILE *out, const json_t *step)
{
	char when[64] = "";
	time_t until = (time_t)time_of(step, "until");
	struct tm tm;
	if (until != 0 && gmtime_r(&until, &tm) != NULL)
		strftime(when, sizeof(when), ", until %Y-%m-%d %H:%M:%S UTC", &tm);
	const char *waits_for = text_of(step, "waits_for"), *action = text_of(step, "action");
	fprintf(out, "%s %s (%s, %s): %s", text_of(step, "domain"), text_of(step, "selector"), text_of(step, "algorithm"),
		text_of(step, "state"), strcmp(action, "none") == 0 ? "" : action);
	if (waits_for[0] != '\0')
		fprintf(out, "%swaits for %s%s", strcmp(action, "none") == 0 ? "" : "; ", waits_for, when);
	else if (strcmp(action, "none") == 0)
		fputs("nothing to do", out);
	fprintf(out, "\n%s", text_of(step, "zone"));
}

static int print_steps(struct rotating *r)
{
	size_t i;
	json_t *step;
	if (r->cli->json)
		return cli_print_json(r->cli, json_incref(r->steps));
	json_array_foreach(r->steps, i, step) {
		print_step(r->cli->out, step);
	}
	return EX_OK;
}

static int64_t seconds(struct cli *cli, const char *option)
{
	return conf_get_number(cli->conf, cli->config, option) / 1000;
}

static int rotate(struct rotating *r, const char *domain)
{
	const char *resolver = cli_option(r->cli, "resolver");
	if (resolver == NULL)
		resolver = conf_get_string(r->cli->conf, r->cli->config, "dkim_resolvers");
	int status = dkim_servers_open(r->cli, resolver, &r->servers);
	if (status == EX_OK)
		status = take_lock(r->cli);
	if (status == EX_OK)
		status = read_now(r);
	if (status == EX_OK)
		status = domain != NULL ? rotate_domain(r, domain) : rotate_all(r);
	/* What was done is told even where the rest failed; in JSON the error is the one value. */
	bool tell = status == EX_OK || (json_array_size(r->steps) > 0 && !r->cli->json);
	int printed = tell ? print_steps(r) : EX_OK;
	dkim_servers_close(&r->servers);
	return status != EX_OK ? status : printed;
}

static int dkim_rotate(struct cli *cli)
{
	struct rotating r = {
		.cli = cli,
		.rules = {seconds(cli, "dkim_rotate_after"), seconds(cli, "dkim_visible_for"), seconds(cli, "dkim_retire_after")},
		.dry_run = cli_has(cli, "dry-run"),
		.asked = !cli_has(cli, "all"),
	};
	const char *algorithm = cli_option(cli, "algorithm");
	char domain[LOOKUP_NAME_SIZE];
	if ((cli_arg(cli, 0) == NULL) != cli_has(cli, "all"))
		return cli_fail(cli, EX_USAGE, "expected a DOMAIN or --all");
	if (cli_has(cli, "unhosted") && cli_has(cli, "all"))
		return cli_fail(cli, EX_USAGE, "--unhosted is for one DOMAIN");
	if (algorithm != NULL && strcmp(algorithm, "rsa") != 0 && strcmp(algorithm, "ed25519") != 0)
		return cli_fail(cli, EX_USAGE, "--algorithm is rsa or ed25519");
	int status = r.asked ? lookup_domain_arg(cli, cli_arg(cli, 0), domain) : EX_OK;
	r.steps = json_array();
	if (status == EX_OK)
		status = rotate(&r, r.asked ? domain : NULL);
	json_decref(r.steps);
	return status;
}

static const struct cli_option options[] = {
	{"all", NULL, "all domains with keys; new keys are made only where one is due", 0},
	{"dry-run", NULL, "only say what would be done", 0},
	{"algorithm", "NAME", "rsa or ed25519 only", 0},
	{"unhosted", NULL, "make the first key of a domain that has no mailboxes here, too", 0},
	{"resolver", "HOST:PORT,...", "DNS servers that must all show a new record, instead of dkim_resolvers", 0},
	{NULL, NULL, NULL, 0},
};

const struct cli_command commands_dkim_rotate[] = {
	{"dkim rotate", "[DOMAIN]", "take the rotation of keys one step further", options, 0, 1,
	 CLI_NEEDS_CONFIG | CLI_NEEDS_DB, dkim_rotate},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};
