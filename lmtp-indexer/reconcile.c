/* The order of the rules matters: a mail that a user has moved is found by its
 * GUID before its trace could make it a copy. */
#include "lmtp-indexer/reconcile.h"

#include <glib.h>

#include "lmtp-indexer/ulid.h"

#define WORDS_MAX 64 /* flags of a mail that are kept */

/* ---- Vanished rows ---- */

void reconcile_lost_init(struct reconcile_lost *l)
{
	*l = (struct reconcile_lost){.count = 0};
	htab_init(&l->by_guid, RECONCILE_GONE_MAX);
	htab_init(&l->by_id, RECONCILE_GONE_MAX);
}

void reconcile_lost_done(struct reconcile_lost *l)
{
	htab_done(&l->by_guid, NULL);
	htab_done(&l->by_id, NULL);
	for (size_t i = 0; i < l->count; i++)
		free(l->items[i]);
	free(l->items);
	*l = (struct reconcile_lost){.count = 0};
}

static struct reconcile_gone *find_gone(const struct reconcile_lost *l, const uint64_t *message_id)
{
	return htab_get(&l->by_id, span_of(message_id, sizeof(*message_id)));
}

int reconcile_lost_add(struct reconcile_lost *l, const struct reconcile_gone *gone)
{
	/* A row that was moved may vanish from its new place, too. */
	const struct reconcile_gone *known = find_gone(l, &gone->message_id);
	if (known != NULL && !known->taken && known->box == gone->box && known->uid == gone->uid)
		return 0;
	if (l->count >= RECONCILE_GONE_MAX)
		return ERR_LIMIT;
	struct reconcile_gone *g = mem_alloc(sizeof(*g)), *old;
	*g = *gone;
	g->next = NULL;
	struct span key = span_of(g->guid, sizeof(g->guid));
	if (g->known) {
		old = htab_get(&l->by_guid, key);
		g->next = old;
		IGNORE_RESULT(htab_put(&l->by_guid, key, g, NULL) < 0); /* there is room for each item */
	}
	IGNORE_RESULT(htab_put(&l->by_id, span_of(&g->message_id, sizeof(g->message_id)), g, NULL) < 0);
	if (l->count == l->size) {
		l->size = l->size == 0 ? 64 : l->size * 2;
		l->items = mem_realloc(l->items, l->size * sizeof(struct reconcile_gone *));
	}
	l->items[l->count++] = g;
	return 0;
}

static struct reconcile_gone *take_gone(struct reconcile_lost *l, const uint8_t guid[RECONCILE_GUID_LEN])
{
	struct reconcile_gone *g = l == NULL ? NULL : htab_get(&l->by_guid, span_of(guid, RECONCILE_GUID_LEN));
	while (g != NULL && g->taken)
		g = g->next;
	if (g != NULL)
		g->taken = true;
	return g;
}

/* ---- The plan ---- */

static const struct reconcile_row *row_of(const struct reconcile *r, uint32_t uid)
{
	for (size_t low = 0, high = r->row_count; low < high;) {
		size_t middle = low + (high - low) / 2;
		if (r->rows[middle].uid == uid)
			return &r->rows[middle];
		if (r->rows[middle].uid < uid)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

static void plan_known(const struct reconcile *r, struct reconcile_mail *m, const struct reconcile_row *row)
{
	/* A look in between may have missed it: while its mailbox was renamed, for example. */
	struct reconcile_gone *missed = r->lost == NULL ? NULL : find_gone(r->lost, &row->id);
	if (missed != NULL)
		missed->taken = true;
	m->message_id = row->id;
	m->pending = row->pending;
	if (row->deleted)
		m->action = RECONCILE_RESTORE;
	else if (!span_eq(row->box_name, r->box_name))
		m->action = RECONCILE_NAME;
	else
		m->action = span_eq(row->flags, m->flags) ? RECONCILE_KEEP : RECONCILE_FLAGS;
}

/* A mail with our trace field. */
static void plan_traced(struct reconcile *r, struct reconcile_mail *m)
{
	bool any = false;
	for (size_t i = 0; i < r->delivery_count; i++) {
		struct reconcile_delivery *d = &r->deliveries[i];
		if (!span_eq(d->id, m->trace))
			continue;
		any = true;
		if (d->placed)
			continue;
		d->placed = true;
		m->action = RECONCILE_ADOPT;
		m->message_id = d->message_id;
		m->pending = d->pending;
		return;
	}
	m->action = any ? RECONCILE_NEW : m->may_come ? RECONCILE_WAIT : RECONCILE_FILL;
}

/* Two mails of one lost delivery: the first gets its id, the others are copies. */
static void note_filled(struct reconcile *r, size_t at)
{
	for (size_t i = 0; i < at; i++)
		if (r->mails[i].action == RECONCILE_FILL && span_eq(r->mails[i].trace, r->mails[at].trace))
			r->mails[at].action = RECONCILE_NEW;
}

void reconcile_plan(struct reconcile *r)
{
	for (size_t i = 0; i < r->mail_count; i++) {
		struct reconcile_mail *m = &r->mails[i];
		const struct reconcile_row *row = row_of(r, m->uid);
		m->message_id = 0;
		m->pending = false;
		m->moved = NULL;
		if (row != NULL) {
			plan_known(r, m, row);
		} else if ((m->moved = take_gone(r->lost, m->guid)) != NULL) {
			m->action = RECONCILE_MOVE;
			m->message_id = m->moved->message_id;
		} else if (ulid_valid(m->trace)) {
			plan_traced(r, m);
			if (m->action == RECONCILE_FILL)
				note_filled(r, i);
		} else {
			m->action = RECONCILE_NEW;
		}
		if (m->action == RECONCILE_NEW && m->may_be_half)
			m->action = RECONCILE_WAIT;
	}
}

/* ---- Forms ---- */

static int rank_of(struct span word)
{
	static const char *const order[] = {"\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft"};
	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
		if (span_ieq(word, span_str(order[i])))
			return (int)i;
	return (int)(sizeof(order) / sizeof(order[0]));
}

static int compare_words(const void *a, const void *b)
{
	const struct span *x = a, *y = b;
	int difference = rank_of(*x) - rank_of(*y);
	return difference != 0 ? difference : span_cmp(*x, *y);
}

static size_t characters(struct span s)
{
	size_t n = 0;
	for (size_t i = 0; i < s.len; i++)
		n += ((unsigned char)s.ptr[i] & 0xc0) != 0x80;
	return n;
}

void reconcile_flags(struct sbuf *out, struct span flags)
{
	struct span words[WORDS_MAX], word;
	size_t count = 0, used = 0;
	while (flags.len > 0 && count < WORDS_MAX) {
		span_cut(&flags, ' ', &word);
		if (word.len > 0 && !span_ieq(word, SPAN_LIT("\\Recent")) && g_utf8_validate(word.ptr, (gssize)word.len, NULL))
			words[count++] = word;
	}
	if (count > 0)
		qsort(words, count, sizeof(words[0]), compare_words);
	for (size_t i = 0; i < count; i++) {
		size_t more = characters(words[i]) + (used > 0);
		if (used + more > RECONCILE_FLAGS_MAX)
			break;
		if (used > 0)
			sbuf_addc(out, ' ');
		sbuf_add(out, words[i]);
		used += more;
	}
}

void reconcile_guid(struct span text, uint8_t guid_out[RECONCILE_GUID_LEN])
{
	uint8_t digest[32];
	gsize len = sizeof(digest);
	GChecksum *sum = g_checksum_new(G_CHECKSUM_SHA256);
	if (sum == NULL)
		PANIC("no SHA-256");
	if (text.len > 0)
		g_checksum_update(sum, (const guchar *)text.ptr, (gssize)text.len);
	g_checksum_get_digest(sum, digest, &len);
	g_checksum_free(sum);
	memcpy(guid_out, digest, RECONCILE_GUID_LEN);
}
