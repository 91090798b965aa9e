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
	const char *name;
	enum feedback_section section;
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
	{"version", SECTION_FEEDBACK, REPORT(version), TEXT_WORD},
	{"org_name", SECTION_METADATA, REPORT(org_name), TEXT_NAME},
	{"email", SECTION_METADATA, REPORT(email), TEXT_NAME},
	{"extra_contact_info", SECTION_METADATA, REPORT(extra_contact), TEXT_PROSE},
	{"report_id", SECTION_METADATA, REPORT(report_id), TEXT_NAME},
	{"generator", SECTION_METADATA, REPORT(generator), TEXT_PROSE},
	{"error", SECTION_METADATA, IN_ERRORS, 0, TEXT_PROSE},
	{"begin", SECTION_DATE_RANGE, NUMBER(begin), TEXT_NAME},
	{"end", SECTION_DATE_RANGE, NUMBER(end), TEXT_NAME},
	{"domain", SECTION_POLICY, REPORT(domain), TEXT_DOMAIN},
	{"discovery_method", SECTION_POLICY, REPORT(discovery_method), TEXT_WORD},
	{"p", SECTION_POLICY, REPORT(p), TEXT_WORD},
	{"sp", SECTION_POLICY, REPORT(sp), TEXT_WORD},
	{"np", SECTION_POLICY, REPORT(np), TEXT_WORD},
	{"adkim", SECTION_POLICY, REPORT(adkim), TEXT_WORD},
	{"aspf", SECTION_POLICY, REPORT(aspf), TEXT_WORD},
	{"fo", SECTION_POLICY, REPORT(fo), TEXT_WORD},
	{"testing", SECTION_POLICY, REPORT(testing), TEXT_WORD},
	{"pct", SECTION_POLICY, NUMBER(pct), TEXT_NAME},
	{"source_ip", SECTION_ROW, NUMBER(source_ip), TEXT_NAME},
	{"count", SECTION_ROW, NUMBER(count), TEXT_NAME},
	{"disposition", SECTION_EVALUATED, RECORD(disposition), TEXT_WORD},
	{"dkim", SECTION_EVALUATED, NUMBER(dkim_aligned), TEXT_WORD},
	{"spf", SECTION_EVALUATED, NUMBER(spf_aligned), TEXT_WORD},
	{"type", SECTION_REASON, REASON(type), TEXT_WORD},
	{"comment", SECTION_REASON, REASON(comment), TEXT_PROSE},
	{"header_from", SECTION_IDENTIFIERS, RECORD(header_from), TEXT_DOMAIN},
	{"envelope_from", SECTION_IDENTIFIERS, RECORD(envelope_from), TEXT_DOMAIN},
	{"envelope_to", SECTION_IDENTIFIERS, RECORD(envelope_to), TEXT_DOMAIN},
	{"domain", SECTION_DKIM, DKIM(domain), TEXT_DOMAIN},
	{"selector", SECTION_DKIM, DKIM(selector), TEXT_NAME},
	{"result", SECTION_DKIM, DKIM(result), TEXT_WORD},
	{"human_result", SECTION_DKIM, DKIM(human_result), TEXT_PROSE},
	{"domain", SECTION_SPF, SPF(domain), TEXT_DOMAIN},
	{"scope", SECTION_SPF, SPF(scope), TEXT_WORD},
	{"result", SECTION_SPF, SPF(result), TEXT_WORD},
	{"human_result", SECTION_SPF, SPF(human_result), TEXT_PROSE},
};

static const struct {
	const char *name;
	enum feedback_section parent, section;
} sections[] = {
	{"feedback", SECTION_DOCUMENT, SECTION_FEEDBACK},
	{"report_metadata", SECTION_FEEDBACK, SECTION_METADATA},
	{"date_range", SECTION_METADATA, SECTION_DATE_RANGE},
	{"policy_published", SECTION_FEEDBACK, SECTION_POLICY},
	{"record", SECTION_FEEDBACK, SECTION_RECORD},
	{"row", SECTION_RECORD, SECTION_ROW},
	{"policy_evaluated", SECTION_ROW, SECTION_EVALUATED},
	{"reason", SECTION_EVALUATED, SECTION_REASON},
	{"identifiers", SECTION_RECORD, SECTION_IDENTIFIERS},
	{"auth_results", SECTION_RECORD, SECTION_AUTH_RESULTS},
	{"dkim", SECTION_AUTH_RESULTS, SECTION_DKIM},
	{"spf", SECTION_AUTH_RESULTS, SECTION_SPF},
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

static void read_source(struct feedback_fields *f)
{
	struct ip ip;
	struct sbuf text;
	sbuf_init(&text, f->record.source_ip, sizeof(f->record.source_ip));
	if (ip_parse(f->numbers.source_ip, &ip) == 0) {
		ip_format(&ip, &text);
		return;
	}
	f->report.oddities++;
	if (f->numbers.source_ip.len > 0)
		f->note = "<source_ip> is no address: its record is kept without one";
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
	read_source(f);
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
