/*
 * Deliveries that are done stay in the log until their segment is removed;
 * their content is overwritten.  One that is open is the index's: it is asked
 * for again when it is done.
 */
#include "lmtp-indexer/spool_internal.h"

struct erasing {
	struct spool *spool;
	struct span account, id;
	const char *delimiter;
	uint64_t waiting;
};

static bool is_for(const struct erasing *e, const struct delivery *d)
{
	if (e->account.len == 0)
		return span_eq(ulid_span(&d->id), e->id);
	for (size_t i = 0; i < d->rcpt_count; i++) {
		char mem[LMTP_PATH_MAX + 1];
		struct sbuf b;
		sbuf_init(&b, mem, sizeof(mem));
		delivery_account(&b, d->rcpts[i].path, e->delimiter);
		if (span_eq(sbuf_span(&b), e->account))
			return true;
	}
	return false;
}

static bool match(void *arg, uint64_t seq, struct span record)
{
	struct erasing *e = arg;
	struct delivery *d;
	if (delivery_record_kind(record) != RECORD_PREPARED || delivery_read_prepared(record, &d) < 0)
		return false;
	bool wanted = is_for(e, d);
	delivery_free(&d);
	if (wanted && spool_is_open(e->spool, seq)) {
		e->waiting++;
		return false;
	}
	return wanted;
}

int spool_erase(struct spool *spool, struct span account, const char *delimiter, struct span id,
		struct spool_erasure *erasure_out)
{
	struct erasing e = {.spool = spool, .account = account, .id = id, .delimiter = delimiter};
	uint64_t records = 0;
	int rc = seglog_blank(spool->log, match, &e, &records);
	if (rc == 0)
		*erasure_out = (struct spool_erasure){records, e.waiting};
	return rc;
}
