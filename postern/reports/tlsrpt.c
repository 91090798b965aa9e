/*
 * From jansson's values to the structs.  A reader that has met an error keeps
 * it (`rc`) and reads nothing more, so the code below checks once at the end.
 */
#include "postern/reports/tlsrpt.h"

#include <jansson.h>

#include "lib/mail/dnsname.h"
#include "lib/mail/idn.h"
#include "postern/reports/content.h"
#include "postern/reports/moment.h"

struct reader {
	struct arena *arena;
	struct sbuf *error;
	size_t failures;
	int rc;
};

static void refuse(struct reader *r, int rc, const char *what, const char *why)
{
	if (r->rc == 0)
		sbuf_addf(r->error, "\"%s\" %s", what, why);
	r->rc = r->rc == 0 ? rc : r->rc;
}

/* ---- Measuring ---- */

/* Counts what would become values; the grammar is the parser's to judge. */
static int measure(struct span json, struct sbuf *error)
{
	size_t values = 1, depth = 0;
	bool quoted = false;
	for (size_t i = 0; i < json.len; i++) {
		char c = json.ptr[i];
		if (quoted) {
			i += c == '\\';
			quoted = c != '"';
			continue;
		}
		quoted = c == '"';
		values += c == ',' || c == '[' || c == '{' || c == ':';
		depth += c == '[' || c == '{';
		depth -= (c == ']' || c == '}') && depth > 0;
		if (depth > TLSRPT_DEPTH_MAX || values > TLSRPT_VALUES_MAX) {
			sbuf_adds(error, depth > TLSRPT_DEPTH_MAX ? "values are nested too deeply"
								  : "there are too many values");
			return ERR_LIMIT;
		}
	}
	return 0;
}

/* ---- Single values ---- */

static struct span keep(struct reader *r, const char *key, const json_t *value, size_t max)
{
	struct span copy = SPAN_EMPTY;
	if (value == NULL || json_is_null(value) || r->rc < 0)
		return copy;
	if (!json_is_string(value)) {
		refuse(r, ERR_SYNTAX, key, "is no text");
		return copy;
	}
	struct span text = span_trim(span_of(json_string_value(value), json_string_length(value)));
	if (text.len > max)
		refuse(r, ERR_LIMIT, key, "is too long");
	else if (arena_dup(r->arena, text, &copy) < 0)
		refuse(r, ERR_LIMIT, key, "is too much: the report holds too much text");
	return copy;
}

static struct span get_text(struct reader *r, const json_t *object, const char *key, size_t max)
{
	return keep(r, key, json_object_get(object, key), max);
}

/* The arena's copy may be written to: a word in lower case. */
static struct span get_lower(struct reader *r, const json_t *object, const char *key)
{
	struct span s = get_text(r, object, key, TLSRPT_NAME_MAX);
	char *p = (char *)(uintptr_t)s.ptr;
	for (size_t i = 0; i < s.len; i++)
		p[i] = ascii_lower(p[i]);
	return s;
}

/* In A-labels and lower case, as domains of ours are. */
static struct span get_domain(struct reader *r, const json_t *object, const char *key)
{
	char mem[DNSNAME_MAX + 1];
	struct sbuf ascii;
	struct span copy = SPAN_EMPTY, text = dnsname_trim(get_text(r, object, key, TLSRPT_NAME_MAX));
	sbuf_init(&ascii, mem, sizeof(mem));
	if (r->rc < 0)
		return copy;
	if (idn_to_ascii(text, &ascii) < 0 || !sbuf_ok(&ascii) || !dnsname_valid(sbuf_span(&ascii)))
		refuse(r, ERR_SYNTAX, key, "is no domain");
	else if (arena_dup(r->arena, sbuf_span(&ascii), &copy) < 0)
		refuse(r, ERR_LIMIT, key, "is too much: the report holds too much text");
	return copy;
}

static struct span get_required(struct reader *r, const json_t *object, const char *key)
{
	struct span s = get_text(r, object, key, TLSRPT_NAME_MAX);
	if (s.len == 0)
		refuse(r, ERR_SYNTAX, key, "is missing");
	return s;
}

static uint64_t get_count(struct reader *r, const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);
	if (value == NULL || json_is_null(value))
		return 0;
	double real = json_number_value(value);
	bool fits = json_is_number(value) && real >= 0 && real <= (double)TLSRPT_COUNT_MAX;
	if (!fits || (double)(uint64_t)real != real) {
		refuse(r, fits ? ERR_SYNTAX : ERR_LIMIT, key, "is no number of sessions");
		return 0;
	}
	return (uint64_t)real;
}

static int64_t get_time(struct reader *r, const json_t *object, const char *key)
{
	int64_t time_s = 0;
	struct span text = get_required(r, object, key);
	if (r->rc == 0 && moment_parse(text, &time_s) < 0)
		refuse(r, ERR_SYNTAX, key, "is no date and time");
	return time_s;
}

/* A list of objects under KEY; one that is missing is empty. */
static const json_t *get_list(struct reader *r, const json_t *object, const char *key, size_t max)
{
	const json_t *list = json_object_get(object, key);
	if (list == NULL || json_is_null(list))
		return NULL;
	if (!json_is_array(list))
		refuse(r, ERR_SYNTAX, key, "is no list");
	else if (json_array_size(list) > max)
		refuse(r, ERR_LIMIT, key, "is too long");
	return r->rc == 0 ? list : NULL;
}

static void *get_memory(struct reader *r, size_t count, size_t size)
{
	void *memory = arena_calloc(r->arena, count + 1, size);
	if (memory == NULL)
		refuse(r, ERR_LIMIT, "policies", "hold too much");
	return memory;
}

/* Strings under KEY: a list of them, or one alone. */
static struct span *get_strings(struct reader *r, const json_t *object, const char *key,
				size_t *count_out)
{
	const json_t *value = json_object_get(object, key);
	bool alone = json_is_string(value);
	const json_t *list = alone ? NULL : get_list(r, object, key, TLSRPT_STRINGS_MAX);
	size_t count = alone ? 1 : json_array_size(list);
	struct span *strings = get_memory(r, count, sizeof(*strings));
	for (size_t i = 0; i < count && r->rc == 0; i++)
		strings[i] = keep(r, key, alone ? value : json_array_get(list, i),
				  TLSRPT_PROSE_MAX);
	*count_out = count;
	return strings;
}

/* ---- The report ---- */

static void read_failure(struct reader *r, const json_t *from, struct tlsrpt_failure *to)
{
	if (!json_is_object(from)) {
		refuse(r, ERR_SYNTAX, "failure-details", "holds something that is no object");
		return;
	}
	to->result_type = get_lower(r, from, "result-type");
	to->sending_mta_ip = get_text(r, from, "sending-mta-ip", TLSRPT_NAME_MAX);
	to->receiving_mx_hostname = get_text(r, from, "receiving-mx-hostname", TLSRPT_NAME_MAX);
	to->receiving_mx_helo = get_text(r, from, "receiving-mx-helo", TLSRPT_NAME_MAX);
	to->receiving_ip = get_text(r, from, "receiving-ip", TLSRPT_NAME_MAX);
	to->additional_information = get_text(r, from, "additional-information", TLSRPT_PROSE_MAX);
	to->reason_code = get_text(r, from, "failure-reason-code", TLSRPT_PROSE_MAX);
	to->sessions = get_count(r, from, "failed-session-count");
}

static void read_policy(struct reader *r, const json_t *from, struct tlsrpt_policy *to)
{
	const json_t *policy = json_object_get(from, "policy"),
		     *summary = json_object_get(from, "summary");
	if (!json_is_object(policy)) {
		refuse(r, ERR_SYNTAX, "policy", "is missing");
		return;
	}
	to->type = get_lower(r, policy, "policy-type");
	to->domain = get_domain(r, policy, "policy-domain");
	to->strings = get_strings(r, policy, "policy-string", &to->string_count);
	to->mx_hosts = get_strings(r, policy, "mx-host", &to->mx_host_count);
	to->successful = get_count(r, summary, "total-successful-session-count");
	to->failed = get_count(r, summary, "total-failure-session-count");
	const json_t *list = get_list(r, from, "failure-details",
				      TLSRPT_FAILURES_MAX - r->failures);
	size_t count = json_array_size(list);
	r->failures += count;
	to->failures = get_memory(r, count, sizeof(*to->failures));
	for (size_t i = 0; i < count && r->rc == 0; i++)
		read_failure(r, json_array_get(list, i), &to->failures[i]);
	to->failure_count = count;
}

static void read_report(struct reader *r, const json_t *from, struct tlsrpt_report *to)
{
	const json_t *range = json_object_get(from, "date-range");
	to->org_name = get_required(r, from, "organization-name");
	to->report_id = get_required(r, from, "report-id");
	to->contact = get_text(r, from, "contact-info", TLSRPT_PROSE_MAX);
	to->begin_s = get_time(r, range, "start-datetime");
	to->end_s = get_time(r, range, "end-datetime");
	if (r->rc == 0 && json_object_get(from, "policies") == NULL)
		refuse(r, ERR_SYNTAX, "policies", "is missing");
	const json_t *list = get_list(r, from, "policies", TLSRPT_POLICIES_MAX);
	size_t count = json_array_size(list);
	to->policies = get_memory(r, count, sizeof(*to->policies));
	for (size_t i = 0; i < count && r->rc == 0; i++)
		read_policy(r, json_array_get(list, i), &to->policies[i]);
	to->policy_count = count;
}

int tlsrpt_parse(struct span json, struct arena *a, struct tlsrpt_report *report_out,
		 struct sbuf *error, unsigned *line_out)
{
	json_error_t why;
	struct tlsrpt_report report = {.policy_count = 0};
	struct reader r = {.arena = a, .error = error};
	*line_out = 0;
	if (json.len > TLSRPT_BYTES_MAX) {
		sbuf_adds(error, "the document is too long");
		return ERR_LIMIT;
	}
	size_t blank = content_blank_len(json);
	int rc = measure(json, error);
	if (rc < 0)
		return rc;
	/* The blank lines stay, so that lines are counted right. */
	bool marked = span_starts(json, SPAN_LIT("\xef\xbb\xbf"));
	struct span text = blank == json.len ? SPAN_EMPTY : span_skip(json, marked ? 3 : 0);
	json_t *document = json_loadb(text.ptr == NULL ? "" : text.ptr, text.len,
				      JSON_REJECT_DUPLICATES, &why);
	if (document == NULL) {
		*line_out = why.line > 0 ? (unsigned)why.line : 1;
		sbuf_adds(error, "not JSON: ");
		sbuf_add_escaped(error, span_str(why.text));
		return ERR_SYNTAX;
	}
	if (json_is_object(document))
		read_report(&r, document, &report);
	else
		refuse(&r, ERR_SYNTAX, "organization-name", "is missing");
	json_decref(document);
	if (r.rc == 0)
		*report_out = report;
	return r.rc;
}
