/*
 * Each question is one command of doveadm, whose values come as a stream: small
 * ones are gathered, the text of a mail goes to memory or a file.  A failed
 * command's values are dropped with the pass.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "lib/base/num.h"
#include "lmtp-indexer/follow_internal.h"
#include "lmtp-indexer/index_internal.h"

#define WORDS_MAX 16
#define UIDS_TEXT_MAX (FOLLOW_CHUNK * 12)

/* Gathers values, COLUMNS a row. */
struct table {
	size_t columns;
	char mem[8][FOLLOW_VALUE_MAX];
	struct sbuf values[8];
	int (*row)(void *arg, const struct sbuf *values);
	void *arg;
	int rc;
};

static void take_piece(void *arg, size_t index, struct span bytes, bool last)
{
	struct table *t = arg;
	size_t column = index % t->columns;
	sbuf_add(&t->values[column], span_take(bytes, t->values[column].size - 1 - t->values[column].len));
	if (!last || column + 1 < t->columns)
		return;
	if (t->rc == 0)
		t->rc = t->row(t->arg, t->values);
	for (size_t i = 0; i < t->columns; i++)
		sbuf_reset(&t->values[i]);
}

static int run(struct follow_pass *p, const char *const *words, size_t count,
	       void (*piece)(void *, size_t, struct span, bool), void *arg)
{
	struct sbuf error;
	sbuf_init(&error, p->f->error, sizeof(p->f->error));
	return doveadm_run(p->f->doveadm, p->user->name, words, count, piece, arg, &error);
}

static int run_table(struct follow_pass *p, const char *const *words, size_t count, size_t columns,
		     int (*row)(void *arg, const struct sbuf *values), void *arg)
{
	struct table *t = mem_zalloc(sizeof(*t));
	t->columns = columns;
	t->row = row;
	t->arg = arg;
	for (size_t i = 0; i < columns; i++)
		sbuf_init(&t->values[i], t->mem[i], sizeof(t->mem[i]));
	int rc = run(p, words, count, take_piece, t);
	if (rc == 0)
		rc = t->rc;
	free(t);
	return rc;
}

static uint64_t number(const struct sbuf *value, uint64_t max)
{
	uint64_t n = 0;
	return num_parse_u64(sbuf_span(value), max, &n) < 0 ? 0 : n;
}

/* ---- Mailboxes ---- */

struct boxes {
	struct follow_pass *p;
	int (*fn)(struct follow_pass *p, const struct follow_box_state *box);
};

/* The columns come in Dovecot's own order: name, messages, uidnext, uidvalidity,
 * highestmodseq, guid. */
static int read_box(void *arg, const struct sbuf *v)
{
	struct boxes *b = arg;
	struct follow_box_state box = {.messages = (uint32_t)number(&v[1], UINT32_MAX),
				       .uid_next = (uint32_t)number(&v[2], UINT32_MAX),
				       .uid_validity = (uint32_t)number(&v[3], UINT32_MAX),
				       .modseq = number(&v[4], UINT64_MAX)};
	if (v[5].len != FOLLOW_GUID_LEN || box.uid_next == 0)
		return 0; /* nothing that could be followed */
	memcpy(box.guid, v[5].ptr, FOLLOW_GUID_LEN);
	struct span name = extract_cut(sbuf_span(&v[0]), FOLLOW_BOX_NAME_CHARS);
	box.name = span_dup(name);
	int rc = b->fn(b->p, &box);
	free(box.name);
	return rc;
}

int follow_fetch_boxes(struct follow_pass *p, int (*fn)(struct follow_pass *p, const struct follow_box_state *box))
{
	static const char *const words[] = {"mailbox status", "messages uidnext uidvalidity highestmodseq guid", "*"};
	struct boxes b = {.p = p, .fn = fn};
	return run_table(p, words, 3, 6, read_box, &b);
}

/* ---- UIDs ---- */

static int read_uid(void *arg, const struct sbuf *v)
{
	uint32_t uid = (uint32_t)number(&v[0], UINT32_MAX);
	if (uid != 0)
		uidset_add(arg, uid, uid);
	return 0;
}

int follow_fetch_uids(struct follow_pass *p, const struct follow_box *box, const char *const *words, size_t count,
		      struct uidset *out)
{
	const char *all[WORDS_MAX] = {"fetch", "uid", "mailbox-guid", box->now.guid};
	if (count > WORDS_MAX - 4)
		PANIC("too many words");
	memcpy(all + 4, words, count * sizeof(*words));
	int rc = run_table(p, all, 4 + count, 1, read_uid, out);
	return rc == 0 && out->full ? ERR_PERM : rc;
}

/* ---- Mails ---- */

struct mails {
	struct arena *mem;
	struct reconcile_mail *list;
	size_t count, max;
};

static int read_mail(void *arg, const struct sbuf *v)
{
	struct mails *m = arg;
	char mem[FOLLOW_VALUE_MAX];
	struct sbuf flags;
	if (m->count >= m->max)
		return 0;
	struct reconcile_mail *mail = &m->list[m->count++];
	*mail = (struct reconcile_mail){.uid = (uint32_t)number(&v[0], UINT32_MAX),
					.received_s = (int64_t)number(&v[3], INT64_MAX / 1000),
					.saved_s = (int64_t)number(&v[4], INT64_MAX / 1000),
					.size_bytes = number(&v[5], UINT64_MAX)};
	reconcile_guid(sbuf_span(&v[1]), mail->guid);
	sbuf_init(&flags, mem, sizeof(mem));
	reconcile_flags(&flags, sbuf_span(&v[2]));
	if (arena_dup(m->mem, sbuf_span(&flags), &mail->flags) < 0)
		return ERR_LIMIT;
	return arena_dup(m->mem, span_trim(sbuf_span(&v[6])), &mail->trace);
}

static int compare_mails(const void *a, const void *b)
{
	const struct reconcile_mail *x = a, *y = b;
	return x->uid < y->uid ? -1 : x->uid > y->uid;
}

int follow_fetch_mails(struct follow_pass *p, const struct follow_box *box, const uint32_t *uids, size_t count,
		       struct reconcile_mail **mails_out, size_t *count_out)
{
	char fields[256], set[UIDS_TEXT_MAX];
	struct sbuf f, s;
	struct mails m = {.mem = &p->f->mem, .max = count};
	m.list = arena_calloc(m.mem, count + 1, sizeof(*m.list));
	if (m.list == NULL)
		return ERR_LIMIT;
	sbuf_init(&f, fields, sizeof(fields));
	sbuf_init(&s, set, sizeof(set));
	sbuf_addf(&f, "uid guid flags date.received.unixtime date.saved.unixtime size.physical hdr.%s modseq",
		  p->f->config.trace_name);
	uidset_print(&s, uids, count);
	const char *words[] = {"fetch", fields, "mailbox-guid", box->now.guid, "uid", set};
	/* Asking for modseq makes Dovecot keep track of it from here on. */
	int rc = run_table(p, words, 6, 8, read_mail, &m);
	if (rc < 0)
		return rc;
	qsort(m.list, m.count, sizeof(*m.list), compare_mails);
	*mails_out = m.list;
	*count_out = m.count;
	return 0;
}

/* ---- Texts ---- */

struct texts {
	struct follow_pass *p;
	struct reconcile_mail *const *mails;
	size_t count, at; /* AT: the mail whose values come */
	char uid_mem[16];
	struct sbuf uid, text;
	int fd; /* of a mail that is too large for memory; -1 */
	/* Mails that are parsed together. */
	struct sbuf gathered; /* their texts, one behind the other */
	struct index_mail parsed[PARSER_BATCH_MAX];
	struct reconcile_mail *of[PARSER_BATCH_MAX];
	size_t lengths[PARSER_BATCH_MAX], gathered_count;
	char ids[PARSER_BATCH_MAX][24];
	int (*fn)(void *arg, struct reconcile_mail *mail, struct extract *x);
	void *arg;
	int rc;
};

static void close_file(struct texts *t)
{
	if (t->fd >= 0)
		close(t->fd);
	t->fd = -1;
}

static int write_all(int fd, struct span s)
{
	while (s.len > 0) {
		ssize_t n = write(fd, s.ptr, s.len);
		if (n < 0 && errno != EINTR)
			return ERR_TEMP;
		s = span_skip(s, n > 0 ? (size_t)n : 0);
	}
	return 0;
}

static int keep(struct texts *t, struct span bytes)
{
	if (t->fd < 0 && t->text.len + bytes.len <= FOLLOW_MEMORY_MAX) {
		sbuf_add(&t->text, bytes);
		return 0;
	}
	if (t->fd < 0) {
		t->fd = open(t->p->f->config.work_dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
		if (t->fd < 0 || write_all(t->fd, sbuf_span(&t->text)) < 0)
			return ERR_TEMP;
		sbuf_reset(&t->text);
	}
	return write_all(t->fd, bytes);
}

static bool is_stopping(void *arg)
{
	struct follow *f = arg;
	return atomic_load(&f->stopping);
}

/* Results of our milter count only in mail that came through it. */
static int give(struct texts *t, struct reconcile_mail *mail, struct extract *x)
{
	if (mail->action != RECONCILE_FILL && !mail->pending)
		x->spf = x->dkim = x->dmarc = x->arc = SPAN_EMPTY;
	return t->fn(t->arg, mail, x);
}

/* Parses what was gathered and hands it on. */
static int parse_gathered(struct texts *t)
{
	const struct follow_config *c = &t->p->f->config;
	struct extract *extracts[PARSER_BATCH_MAX];
	const struct span all = sbuf_span(&t->gathered);
	int rc = 0;
	for (size_t i = 0, at = 0; i < t->gathered_count; at += t->lengths[i++])
		t->parsed[i].source.bytes = span_take(span_skip(all, at), t->lengths[i]);
	for (size_t done = 0, n; done < t->gathered_count && rc == 0; done += n) {
		n = index_parse(c->parser, &c->limits, is_stopping, t->p->f, t->parsed + done, t->gathered_count - done, extracts);
		rc = n == 0 ? ERR_TEMP : 0;
		for (size_t i = 0; i < n; i++) {
			if (rc == 0)
				rc = give(t, t->of[done + i], extracts[i]);
			else
				extract_free(&extracts[i]);
		}
	}
	t->gathered_count = 0;
	sbuf_reset(&t->gathered);
	return rc;
}

/* A mail is whole: it is parsed with those that come next, or at once where it is a file. */
static int gather(struct texts *t)
{
	uint64_t uid = number(&t->uid, UINT32_MAX);
	struct sbuf id;
	int rc = 0;
	while (t->at < t->count && t->mails[t->at]->uid < uid)
		t->at++; /* has vanished meanwhile */
	if (t->at >= t->count || t->mails[t->at]->uid != uid)
		return 0;
	if (t->gathered_count == PARSER_BATCH_MAX || t->gathered.len + t->text.len > SESSION_CHUNK)
		rc = parse_gathered(t);
	if (rc == 0 && t->fd >= 0 && lseek(t->fd, 0, SEEK_SET) < 0)
		rc = ERR_TEMP;
	if (rc < 0)
		return rc;
	size_t n = t->gathered_count++;
	sbuf_init(&id, t->ids[n], sizeof(t->ids[n]));
	sbuf_addf(&id, "uid %llu", (unsigned long long)uid);
	t->parsed[n] = (struct index_mail){.id = sbuf_span(&id), .source = {.fd = t->fd}};
	t->of[n] = t->mails[t->at++];
	t->lengths[n] = t->fd >= 0 ? 0 : t->text.len;
	if (t->fd < 0)
		sbuf_add(&t->gathered, sbuf_span(&t->text));
	return t->fd >= 0 ? parse_gathered(t) : 0;
}

static void take_text(void *arg, size_t index, struct span bytes, bool last)
{
	struct texts *t = arg;
	if (t->rc < 0)
		return;
	if (index % 2 == 0) {
		sbuf_add(&t->uid, bytes);
		return;
	}
	t->rc = keep(t, bytes);
	if (!last)
		return;
	if (t->rc == 0)
		t->rc = gather(t);
	close_file(t);
	sbuf_reset(&t->text);
	sbuf_reset(&t->uid);
}

/* One command for as many mails as fit together. */
static int fetch_group(struct texts *t, const struct follow_box *box, size_t from, size_t to)
{
	char set[UIDS_TEXT_MAX];
	uint32_t uids[FOLLOW_CHUNK];
	struct sbuf s;
	for (size_t i = from; i < to; i++)
		uids[i - from] = t->mails[i]->uid;
	sbuf_init(&s, set, sizeof(set));
	uidset_print(&s, uids, to - from);
	const char *words[] = {"fetch", "uid text", "mailbox-guid", box->now.guid, "uid", set};
	t->at = from;
	t->rc = 0;
	sbuf_reset(&t->uid);
	sbuf_reset(&t->text);
	int rc = run(t->p, words, 6, take_text, t);
	close_file(t);
	rc = rc < 0 ? rc : t->rc;
	if (rc == 0)
		rc = parse_gathered(t);
	t->gathered_count = 0;
	sbuf_reset(&t->gathered);
	return rc;
}

int follow_fetch_texts(struct follow_pass *p, const struct follow_box *box, struct reconcile_mail *const *mails,
		       size_t count, int (*fn)(void *arg, struct reconcile_mail *mail, struct extract *x), void *arg)
{
	struct texts t = {.p = p, .mails = mails, .count = count, .fd = -1, .fn = fn, .arg = arg};
	int rc = 0;
	sbuf_init(&t.uid, t.uid_mem, sizeof(t.uid_mem));
	sbuf_init_heap(&t.text, FOLLOW_MEMORY_MAX);
	sbuf_init_heap(&t.gathered, SESSION_CHUNK);
	for (size_t from = 0; from < count && rc == 0;) {
		uint64_t bytes = mails[from]->size_bytes;
		size_t to = from + 1;
		while (to < count && to - from < FOLLOW_CHUNK && bytes + mails[to]->size_bytes <= FOLLOW_TEXTS_BYTES)
			bytes += mails[to++]->size_bytes;
		rc = fetch_group(&t, box, from, to);
		from = to;
	}
	sbuf_done(&t.text);
	sbuf_done(&t.gathered);
	return rc;
}
