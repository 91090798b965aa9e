/*
 * Content read back from the spool.  The reader of the log only goes forward,
 * so it is made anew when an earlier delivery is asked for, or one so far
 * ahead that skipping would cost more than seeking.
 */
#include <fcntl.h>

#include "lmtp-indexer/spool_internal.h"

#define SKIP_MAX 4096 /* records */

struct spool_reader {
	struct spool *spool;
	struct seglog_reader *reader;
	uint64_t next; /* the reader stands before this number */
	struct sbuf record;
};

struct spool_reader *spool_reader_new(struct spool *spool)
{
	struct spool_reader *r = mem_zalloc(sizeof(*r));
	r->spool = spool;
	sbuf_init_heap(&r->record, SEGLOG_RECORD_MAX);
	return r;
}

void spool_reader_free(struct spool_reader **reader)
{
	struct spool_reader *r = *reader;
	if (r == NULL)
		return;
	seglog_reader_free(&r->reader);
	sbuf_done(&r->record);
	free(r);
	*reader = NULL;
}

static void position(struct spool_reader *r, uint64_t seq)
{
	if (r->reader != NULL && seq >= r->next && seq - r->next <= SKIP_MAX)
		return;
	seglog_reader_free(&r->reader);
	r->reader = seglog_reader_new(r->spool->log, seq);
	r->next = seq;
}

static int read_record(struct spool_reader *r, uint64_t seq)
{
	uint64_t found = 0;
	position(r, seq);
	while (found < seq) {
		sbuf_reset(&r->record);
		int rc = seglog_reader_next(r->reader, seq, &found, &r->record);
		if (rc == ERR_PERM)
			seglog_reader_skip(r->reader);
		else if (rc < 0)
			return rc;
		else
			r->next = found + 1;
	}
	return found == seq ? 0 : ERR_NOT_FOUND;
}

int spool_read(struct spool_reader *r, const struct delivery *d, struct sbuf *buf, int *fd_out)
{
	char path[SPOOL_PATH_MAX];
	struct delivery *copy;
	if (d->in_file) {
		spool_file_path(r->spool, &d->id, path);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return ERR_NOT_FOUND;
		*fd_out = fd;
		return 0;
	}
	int rc = read_record(r, d->seq);
	if (rc == 0)
		rc = delivery_read_prepared(sbuf_span(&r->record), &copy);
	if (rc != 0)
		return rc;
	sbuf_add(buf, copy->content);
	delivery_free(&copy);
	*fd_out = -1;
	return sbuf_ok(buf) ? 0 : ERR_LIMIT;
}
