/*
 * The table of elements.  Texts are copied into the arena of the report or of
 * the record, so the parser's buffers may go.  Errors are sentences that name
 * the element.
 */
#include "postern/reports/feedback_fields.h"

#include "lib/mail/dnsname.h"
#include "lib/mail/idn.h"
#include "postern/reports/moment.h"

#define REPORT_ARENA_MAX (128u << 10)
/* All lists full, each text as long as it may be. */
#define RECORD_ARENA_MAX ((size_t)FEEDBACK_RESULTS_MAX * 10 * (FEEDBACK_PROSE_MAX + 16))
#define PCT_MAX 100

struct feedback_leaf {
	enum feedback_section section;
	const char *name;
	enum { IN_REPORT, IN_ERRORS, IN_RECORD, IN_REASON, IN_DKIM, IN_SPF, IN_NUMBERS } place;
	size_t offset;
	enum { TEXT_NAME, TEXT_WORD, TEXT_DOMAIN, TEXT_PROSE } kind;
};

#define REPORT(member) IN_REPORT, offsetof(struct feedback_report, member)
#define RECORD(member) IN_RECORD, offsetof(struct feedback_record, member)
#define REASON(member) IN_REASON, offsetof(struct feedback_reason, member)
#define DKIM(member) IN_DKIM, offsetof(struct feedback_result, member)
#define SPF(member) IN_SPF, offsetof(struct feedback_result, member)
#define NUMBER(member) IN_NUMBERS, offsetof(struct feedback_numbers, member)

static const struct feedback_leaf leaves[] = {
	{SECTION_FEEDBACK, "version", REPORT(version), TEXT_WORD},
	{SECTION_METADATA, "org_name", REPORT(org_name), TEXT_NAME},
	{SECTION_METADATA, "email", REPORT(email), TEXT_NAME},
	{SECTION_METADATA, "extra_contact_info", REPORT(extra_contact), TEXT_PROSE},
	{SECTION_METADATA, "report_id", REPORT(report_id), TEXT_NAME},
	{SECTION_METADATA, "generator", REPORT(generator), TEXT_PROSE},
	{SECTION_METADATA, "error", IN_ERRORS, 0, TEXT_PROSE},
	{SECTION_DATE_RANGE, "begin", NUMBER(begin), TEXT_NAME},
	{SECTION_DATE_RANGE, "end", NUMBER(end), TEXT_NAME},
	{SECTION_POLICY, "domain", REPORT(domain), TEXT_DOMAIN},
	{SECTION_POLICY, "discovery_method", REPORT(discovery_method), TEXT_WORD},
	{SECTION_POLICY, "p", REPORT(p), TEXT_WORD},
	{SECTION_POLICY, "sp", REPORT(sp), TEXT_WORD},
	{SECTION_POLICY, "np", REPORT(np), TEXT_WORD},
	{SECTION_POLICY, "adkim", REPORT(adkim), TEXT_WORD},
	{SECTION_POLICY, "aspf", REPORT(aspf), TEXT_WORD},
	{SECTION_POLICY, "fo", REPORT(fo), TEXT_WORD},
	{SECTION_POLICY, "testing", REPORT(testing), TEXT_WORD},
	{SECTION_POLICY, "pct", NUMBER(pct), TEXT_NAME},
	{SECTION_ROW, "source_ip", NUMBER(source_ip), TEXT_NAME},
	{SECTION_ROW, "count", NUMBER(count), TEXT_NAME},
	{SECTION_EVALUATED, "disposition", RECORD(disposition), TEXT_WORD},
	{SECTION_EVALUATED, "dkim", NUMBER(dkim_aligned), TEXT_WORD},
	{SECTION_EVALUATED, "spf", NUMBER(spf_aligned), TEXT_WORD},
	{SECTION_REASON, "type", REASON(type), TEXT_WORD},
	{SECTION_REASON, "comment", REASON(comment), TEXT_PROSE},
	{SECTION_IDENTIFIERS, "header_from", RECORD(header_from), TEXT_DOMAIN},
	{SECTION_IDENTIFIERS, "envelope_from", RECORD(envelope_from), TEXT_DOMAIN},
	{SECTION_IDENTIFIERS, "envelope_to", RECORD(envelope_to), TEXT_DOMAIN},
	{SECTION_DKIM, "domain", DKIM(domain), TEXT_DOMAIN},
	{SECTION_DKIM, "selector", DKIM(selector), TEXT_NAME},
	{SECTION_DKIM, "result", DKIM(result), TEXT_WORD},
	{SECTION_DKIM, "human_result", DKIM(human_result), TEXT_PROSE},
	{SECTION_SPF, "domain", SPF(domain), TEXT_DOMAIN},
	{SECTION_SPF, "scope", SPF(scope), TEXT_WORD},
	{SECTION_SPF, "result", SPF(result), TEXT_WORD},
	{SECTION_SPF, "human_result", SPF(human_result), TEXT_PROSE},
};

static const struct {
	enum feedback_section parent;
	const char *name;
	enum feedback_section section;
} sections[] = {
	{SECTION_DOCUMENT, "feedback", SECTION_FEEDBACK},
	{SECTION_FEEDBACK, "report_metadata", SECTION_METADATA},
	{SECTION_METADATA, "date_range", SECTION_DATE_RANGE},
	{SECTION_FEEDBACK, "policy_published", SECTION_POLICY},
	{SECTION_FEEDBACK, "record", SECTION_RECORD},
	{SECTION_RECORD, "row", SECTION_ROW},
	{SECTION_ROW, "policy_evaluated", SECTION_EVALUATED},
	{SECTION_EVALUATED, "reason", SECTION_REASON},
	{SECTION_RECORD, "identifiers", SECTION_IDENTIFIERS},
	{SECTION_RECORD, "auth_results", SECTION_AUTH_RESULTS},
	{SECTION_AUTH_RESULTS, "dkim", SECTION_DKIM},
	{SECTION_AUTH_RESULTS, "spf", SECTION_SPF},
};

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

enum feedback_section feedback_section_find(enum feedback_section parent, struct span name)
{
	for (size_t i = 0; i < COUNT_OF(sections); i++)
		if (sections[i].parent == parent && span_ieq(span_str(sections[i].name), name))
			return sections[i].section;
	return SECTION_COUNT;
}

const struct feedback_leaf *feedback_leaf_find(enum feedback_section section, struct span name)
{
	for (size_t i = 0; i < COUNT_OF(leaves); i++)
		if (leaves[i].section == section && span_ieq(span_str(leaves[i].name), name))
			return &leaves[i];
	return NULL;
}

void feedback_fields_init(struct feedback_fields *f, struct sbuf *error)
{
	f->error = error;
	f->report.pct = -1;
	arena_init(&f->report_arena, REPORT_ARENA_MAX);
	arena_init(&f->record_arena, RECORD_ARENA_MAX);
}

void feedback_fields_done(struct feedback_fields *f)
{
	arena_done(&f->report_arena);
	arena_done(&f->record_arena);
}

/* ---- Leaves ---- */

/* Where the text of LEAF goes; NULL for an item behind the end of a full list. */
static struct span *place_of(struct feedback_fields *f, const struct feedback_leaf *leaf)
{
	char *base = NULL;
	switch (leaf->place) {
	case IN_REPORT:
		base = (char *)&f->report;
		break;
	case IN_RECORD:
		base = (char *)&f->record;
		break;
	case IN_NUMBERS:
		base = (char *)&f->numbers;
		break;
	case IN_ERRORS:
		if (f->report.error_count < FEEDBACK_ERRORS_MAX)
			return &f->report.errors[f->report.error_count++];
		return NULL;
	/* A count past the cap means that the item in hand is dropped. */
	case IN_REASON:
		if (f->record.reason_count <= FEEDBACK_RESULTS_MAX)
			base = (char *)&f->record.reasons[f->record.reason_count - 1];
		break;
	case IN_DKIM:
		if (f->record.dkim_count <= FEEDBACK_RESULTS_MAX)
			base = (char *)&f->record.dkim[f->record.dkim_count - 1];
		break;
	case IN_SPF:
		if (f->record.spf_count <= FEEDBACK_RESULTS_MAX)
			base = (char *)&f->record.spf[f->record.spf_count - 1];
		break;
	}
	return base == NULL ? NULL : (struct span *)(void *)(base + leaf->offset);
}

/* The first bytes of a longer text, whole characters only. */
static struct span cut_prose(struct span text)
{
	size_t len = FEEDBACK_PROSE_MAX;
	while (len > 0 && ((unsigned char)text.ptr[len] & 0xc0) == 0x80)
		len--;
	return span_trim(span_take(text, len));
}

static void add_domain(struct sbuf *out, struct span text)
{
	struct span name = dnsname_trim(text);
	if (idn_to_ascii(name, out) < 0)
		sbuf_add_lower(out, name);
}

int feedback_leaf_store(struct feedback_fields *f, const struct feedback_leaf *leaf,
			struct span text)
{
	char mem[4 * FEEDBACK_NAME_MAX];
	struct sbuf form;
	struct span value = span_trim(text), *place = value.len == 0 ? NULL : place_of(f, leaf);
	if (value.len == 0)
		return 0;
	if (place == NULL || place->len > 0) {
		f->report.oddities++;
		return 0;
	}
	if (leaf->kind == TEXT_PROSE && value.len > FEEDBACK_PROSE_MAX) {
		f->report.oddities++;
		value = cut_prose(value);
	}
	sbuf_init(&form, mem, sizeof(mem));
	if (leaf->kind == TEXT_WORD || leaf->kind == TEXT_DOMAIN) {
		if (leaf->kind == TEXT_WORD)
			sbuf_add_lower(&form, span_take(value, FEEDBACK_NAME_MAX + 1));
		else
			add_domain(&form, span_take(value, FEEDBACK_NAME_MAX + 1));
		value = sbuf_ok(&form) && value.len <= FEEDBACK_NAME_MAX ? sbuf_span(&form) : value;
	}
	if (leaf->kind != TEXT_PROSE && value.len > FEEDBACK_NAME_MAX) {
		sbuf_addf(f->error, "<%s> is longer than %d bytes", leaf->name, FEEDBACK_NAME_MAX);
		return ERR_LIMIT;
	}
	bool of_record = leaf->section >= SECTION_RECORD;
	if (arena_dup(of_record ? &f->record_arena : &f->report_arena, value, place) < 0) {
		sbuf_adds(f->error, "there is too much text");
		return ERR_LIMIT;
	}
	return 0;
}

/* ---- Sections ---- */

static int missing(struct feedback_fields *f, const char *what)
{
	sbuf_addf(f->error, "%s is missing or not readable", what);
	return ERR_SYNTAX;
}

static int once(struct feedback_fields *f, bool *flag, const char *name)
{
	if (*flag) {
		sbuf_addf(f->error, "<%s> stands there twice", name);
		return ERR_SYNTAX;
	}
	*flag = true;
	return 0;
}

static void begin_record(struct feedback_fields *f)
{
	arena_reset(&f->record_arena);
	/* Items of lists are emptied when they are begun. */
	struct feedback_record *r = &f->record;
	r->reason_count = r->dkim_count = r->spf_count = 0;
	r->disposition = r->header_from = r->envelope_from = r->envelope_to = SPAN_EMPTY;
	r->source_ip[0] = '\0';
	struct feedback_numbers *n = &f->numbers;
	n->source_ip = n->count = n->dkim_aligned = n->spf_aligned = SPAN_EMPTY;
}

static void begin_item(struct feedback_fields *f, void *items, size_t size, size_t *count)
{
	if (*count < FEEDBACK_RESULTS_MAX)
		memset((char *)items + *count * size, 0, size);
	else
		f->report.oddities++;
	if (*count <= FEEDBACK_RESULTS_MAX)
		++*count;
}

int feedback_section_begin(struct feedback_fields *f, enum feedback_section section)
{
	struct feedback_record *r = &f->record;
	switch (section) {
	case SECTION_METADATA:
		return once(f, &f->has_metadata, "report_metadata");
	case SECTION_POLICY:
		return once(f, &f->has_policy, "policy_published");
	case SECTION_RECORD:
		begin_record(f);
		break;
	case SECTION_REASON:
		begin_item(f, r->reasons, sizeof(r->reasons[0]), &r->reason_count);
		break;
	case SECTION_DKIM:
		begin_item(f, r->dkim, sizeof(r->dkim[0]), &r->dkim_count);
		break;
	case SECTION_SPF:
		begin_item(f, r->spf, sizeof(r->spf[0]), &r->spf_count);
		break;
	default:
		break;
	}
	return 0;
}

static int end_metadata(struct feedback_fields *f)
{
	struct feedback_report *r = &f->report;
	if (r->report_id.len == 0)
		return missing(f, "<report_id>");
	if (r->org_name.len == 0) {
		size_t at = span_rchr(r->email, '@');
		r->oddities++;
		r->org_name = span_skip(r->email, at == SPAN_NPOS ? 0 : at + 1);
	}
	if (r->org_name.len == 0)
		return missing(f, "<org_name>");
	if (moment_parse(f->numbers.begin, &r->begin_s) < 0)
		return missing(f, "<begin>");
	if (moment_parse(f->numbers.end, &r->end_s) < 0)
		return missing(f, "<end>");
	if (r->end_s < r->begin_s)
		r->oddities++;
	return 0;
}

static int end_policy(struct feedback_fields *f)
{
	struct feedback_report *r = &f->report;
	uint64_t pct;
	if (!dnsname_valid(r->domain) || !idn_is_ascii(r->domain))
		return missing(f, "<domain> of <policy_published>");
	if (f->numbers.pct.len == 0)
		return 0;
	if (moment_parse_count(f->numbers.pct, PCT_MAX, &pct) == 0)
		r->pct = (int)pct;
	else
		r->oddities++;
	return 0;
}

/* "pass" or not; anything but the two words of the RFC is odd. */
static bool read_alignment(struct feedback_fields *f, struct span word)
{
	bool pass = span_eq(word, SPAN_LIT("pass"));
	if (!pass && !span_eq(word, SPAN_LIT("fail")))
		f->report.oddities++;
	return pass;
}

static void read_disposition(struct feedback_fields *f)
{
	static const char *const words[] = {"none", "pass", "quarantine", "reject"};
	struct span *disposition = &f->record.disposition;
	for (size_t i = 0; i < COUNT_OF(words); i++)
		if (span_eq(*disposition, span_str(words[i])))
			return;
	f->report.oddities++;
	*disposition = SPAN_EMPTY;
}

static int read_source(struct feedback_fields *f)
{
	struct ip ip;
	struct sbuf text;
	sbuf_init(&text, f->record.source_ip, sizeof(f->record.source_ip));
	if (f->numbers.source_ip.len == 0) {
		f->report.oddities++;
		return 0;
	}
	if (ip_parse(f->numbers.source_ip, &ip) < 0)
		return missing(f, "the address in <source_ip>");
	ip_format(&ip, &text);
	return 0;
}

static void clamp(size_t *count)
{
	if (*count > FEEDBACK_RESULTS_MAX)
		*count = FEEDBACK_RESULTS_MAX;
}

static int end_record(struct feedback_fields *f)
{
	struct feedback_record *r = &f->record;
	if (moment_parse_count(f->numbers.count, FEEDBACK_COUNT_MAX, &r->count) < 0)
		return missing(f, "<count>");
	int rc = read_source(f);
	if (rc < 0)
		return rc;
	read_disposition(f);
	r->dkim_aligned = read_alignment(f, f->numbers.dkim_aligned);
	r->spf_aligned = read_alignment(f, f->numbers.spf_aligned);
	clamp(&r->reason_count);
	clamp(&r->dkim_count);
	clamp(&r->spf_count);
	if (r->header_from.len == 0)
		f->report.oddities++;
	f->report.records++;
	f->report.messages += r->count;
	f->report.passed += r->dkim_aligned || r->spf_aligned ? r->count : 0;
	f->report.dkim_aligned += r->dkim_aligned ? r->count : 0;
	f->report.spf_aligned += r->spf_aligned ? r->count : 0;
	return 0;
}

int feedback_section_end(struct feedback_fields *f, enum feedback_section section)
{
	switch (section) {
	case SECTION_METADATA:
		return end_metadata(f);
	case SECTION_POLICY:
		return end_policy(f);
	case SECTION_RECORD:
		return end_record(f);
	case SECTION_FEEDBACK:
		if (!f->has_metadata)
			return missing(f, "<report_metadata>");
		return f->has_policy ? 0 : missing(f, "<policy_published>");
	default:
		return 0;
	}
}
