/*
 * The rows are read twice, in one snapshot of the database, in the order in which
 * they came: memory grows by 24 bytes a record.  That a report is cut stands in
 * its head, so it is written twice then; the second time the number of records
 * is known.
 */
#include "postern/report_build.h"

#include <unistd.h>

#include "milter-dkim/crypto.h"
#include "postern/gzip.h"

#define STOP 1
/* What the compressor may still hold back when it is told to end, and the foot. */
#define GZIP_MARGIN (128u << 10)
#define ID_BYTES 16

struct writer {
	struct report *report;
	report_write_fn *write;
	void *arg;
	uint64_t max_records;
	struct sbuf row;
};

void report_sender_set(const struct postern_config *config, struct report_sender *sender_out)
{
	char host[256] = "localhost";
	if (gethostname(host, sizeof(host) - 1) != 0)
		memcpy(host, "localhost", sizeof("localhost"));
	bool set = config->dmarc_report_organization[0] != '\0';
	snprintf(sender_out->organization, REPORT_NAME_SIZE, "%s", set ? config->dmarc_report_organization : host);
	if (config->dmarc_report_email[0] != '\0')
		snprintf(sender_out->email, REPORT_NAME_SIZE, "%s", config->dmarc_report_email);
	else
		snprintf(sender_out->email, REPORT_NAME_SIZE, "postmaster@%s", host);
	sender_out->contact = config->dmarc_report_contact;
	sender_out->max_bytes = (size_t)config->dmarc_report_max_bytes;
}

/* Fit for a file name, a header field and the table: what discovery makes. */
static bool is_domain(struct span s)
{
	for (size_t i = 0; i < s.len; i++)
		if (!ascii_isalnum(s.ptr[i]) && strchr("-_.", s.ptr[i]) == NULL)
			return false;
	return s.len > 0 && s.len <= AGGREGATE_DOMAIN_MAX && s.ptr[0] != '.' && s.ptr[s.len - 1] != '.';
}

/* The same on every run of this machine, so that a preview shows it too. */
static void make_id(const struct report *r, char id_out[REPORT_ID_SIZE])
{
	uint8_t digest[CRYPTO_SHA256_BYTES];
	char mem[2048], host[256] = "";
	struct sbuf text, id;
	if (gethostname(host, sizeof(host) - 1) != 0)
		host[0] = '\0';
	sbuf_init(&text, mem, sizeof(mem));
	sbuf_addf(&text, "%s\n%s\n%.*s\n%lld\n", host, r->sender->email, SPAN_ARG(r->domain),
		  (long long)r->period.begin);
	crypto_sha256(sbuf_span(&text), digest);
	sbuf_init(&id, id_out, REPORT_ID_SIZE);
	sbuf_add_hex(&id, span_of(digest, ID_BYTES));
}

int report_init(struct report *r, struct db *db, const struct report_sender *sender,
		const struct report_period *period, struct span domain)
{
	struct sbuf name;
	*r = (struct report){.db = db, .sender = sender, .period = *period};
	sbuf_init(&name, r->domain_mem, sizeof(r->domain_mem));
	sbuf_init_heap(&r->record_text, REPORT_RECORD_MAX);
	sbuf_init_heap(&r->discovery, 64);
	sbuf_add_lower(&name, domain);
	r->domain = sbuf_span(&name);
	if (!sbuf_ok(&name) || !is_domain(r->domain))
		return ERR_NOT_FOUND;
	int rc = report_store_policy(db, period, r->domain, &r->record_text, &r->discovery);
	if (rc == 0 && dmarc_record_parse(sbuf_span(&r->record_text), &r->record) < 0)
		rc = ERR_NOT_FOUND;
	if (rc < 0)
		return rc;
	rc = report_store_id(db, period, r->domain, r->id);
	if (rc == ERR_NOT_FOUND)
		make_id(r, r->id);
	return rc == ERR_NOT_FOUND ? 0 : rc;
}

void report_done(struct report *r)
{
	sbuf_done(&r->record_text);
	sbuf_done(&r->discovery);
	aggregate_free(&r->tuples);
}

static int count_row(void *arg, const struct aggregate_row *row)
{
	aggregate_count(arg, row);
	return 0;
}

static int count_rows(struct report *r)
{
	aggregate_free(&r->tuples);
	r->tuples = aggregate_new(AGGREGATE_TUPLES_MAX);
	int rc = report_store_rows(r->db, &r->period, r->domain, count_row, r->tuples);
	const struct aggregate_totals totals = aggregate_totals(r->tuples);
	r->size = (struct report_size){.messages = totals.messages, .records = totals.records};
	r->left_out = totals.left_out;
	return rc;
}

static int write_row(void *arg, const struct aggregate_row *row)
{
	struct writer *w = arg;
	struct span ip, body;
	uint64_t count;
	if (!aggregate_next(w->report->tuples, row, &ip, &count, &body))
		return 0;
	if (w->report->size.records == w->max_records) {
		w->report->cut = true;
		return STOP;
	}
	sbuf_reset(&w->row);
	aggregate_xml_row(ip, count, &w->row);
	int rc = w->write(w->arg, sbuf_span(&w->row));
	if (rc == 0)
		rc = w->write(w->arg, body);
	w->report->size.records++;
	w->report->size.messages += count;
	return rc;
}

static int write_head(const struct report *r, uint64_t max_records, report_write_fn *write, void *arg)
{
	char error_mem[128];
	struct sbuf out, error;
	sbuf_init(&error, error_mem, sizeof(error_mem));
	if (max_records != UINT64_MAX)
		sbuf_addf(&error, "The report is cut after %llu records: the rest would make it too large.",
			  (unsigned long long)max_records);
	const struct aggregate_head head = {
		.organization = span_str(r->sender->organization),
		.email = span_str(r->sender->email),
		.contact = span_str(r->sender->contact),
		.report_id = span_str(r->id),
		.begin = r->period.begin,
		.end = r->period.end,
		.error = sbuf_span(&error),
		.generator = SPAN_LIT("Postern " POSTERN_VERSION),
		.domain = r->domain,
		.discovery = sbuf_span(&r->discovery),
		.record = &r->record,
	};
	sbuf_init_heap(&out, AGGREGATE_HEAD_MAX);
	aggregate_xml_head(&head, &out);
	int rc = sbuf_ok(&out) ? write(arg, sbuf_span(&out)) : ERR_LIMIT;
	sbuf_done(&out);
	return rc;
}

static int write_all(struct report *r, uint64_t max_records, report_write_fn *write, void *arg)
{
	char mem[512];
	struct writer w = {.report = r, .write = write, .arg = arg, .max_records = max_records};
	r->size = (struct report_size){.messages = 0};
	r->cut = false;
	int rc = write_head(r, max_records, write, arg);
	if (rc != 0)
		return rc;
	sbuf_init(&w.row, mem, sizeof(mem));
	aggregate_rewind(r->tuples);
	rc = report_store_rows(r->db, &r->period, r->domain, write_row, &w);
	if (rc == STOP)
		rc = 0;
	sbuf_reset(&w.row);
	aggregate_xml_foot(&w.row);
	return rc == 0 ? write(arg, sbuf_span(&w.row)) : rc;
}

/* Begins a snapshot and counts; the caller ends it by db_rollback(). */
static int begin(struct report *r)
{
	int rc = db_begin(r->db);
	return rc < 0 ? rc : count_rows(r);
}

int report_count(struct report *r)
{
	int rc = begin(r);
	db_rollback(r->db);
	return rc;
}

int report_write(struct report *r, report_write_fn *write, void *arg)
{
	int rc = begin(r);
	if (rc == 0)
		rc = write_all(r, UINT64_MAX, write, arg);
	db_rollback(r->db);
	return rc;
}

struct compressor {
	struct report *report;
	struct gzip *gzip;
	struct sbuf *out;
	bool first; /* how much fits is not known yet */
};

static int compress_bytes(void *arg, struct span bytes)
{
	struct compressor *c = arg;
	int rc = gzip_add(c->gzip, bytes);
	if (rc == 0 && c->first && c->out->len + GZIP_MARGIN > c->report->sender->max_bytes)
		rc = ERR_LIMIT;
	if (rc == ERR_LIMIT)
		c->report->cut = true;
	return rc;
}

static int compress_once(struct report *r, uint64_t max_records, struct sbuf *out)
{
	sbuf_reset(out);
	struct compressor c = {.report = r, .gzip = gzip_new(out), .out = out,
			       .first = max_records == UINT64_MAX};
	int rc = write_all(r, max_records, compress_bytes, &c);
	if (rc == 0)
		rc = gzip_end(c.gzip);
	gzip_free(&c.gzip);
	r->size.bytes = out->len;
	return rc;
}

int report_compress(struct report *r, struct sbuf *out)
{
	int rc = begin(r);
	if (rc == 0)
		rc = compress_once(r, UINT64_MAX, out);
	/* Without the record that did not fit, and one for the longer head. */
	if (rc == ERR_LIMIT && r->cut && r->size.records > 2) {
		rc = compress_once(r, r->size.records - 2, out);
		r->cut = true;
	}
	db_rollback(r->db);
	return rc;
}

void report_mail_of(const struct report *r, struct span data, struct report_mail *mail_out)
{
	*mail_out = (struct report_mail){
		.organization = span_str(r->sender->organization),
		.from = span_str(r->sender->email),
		.domain = r->domain,
		.report_id = span_str(r->id),
		.begin = r->period.begin,
		.end = r->period.end,
		.messages = r->size.messages,
		.records = r->size.records,
		.report = data,
	};
}
