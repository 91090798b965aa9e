/*
 * One chunk of UIDs of a mailbox: list them on both sides, plan, change rows in
 * one transaction, then add what has no row yet with its content.
 */
#include "lmtp-indexer/events.h"
#include "lmtp-indexer/follow_internal.h"
#include "lmtp-indexer/server.h"
#include "lmtp-indexer/ulid.h"

struct chunk {
	struct follow_pass *p;
	struct follow_box *box;
	struct follow_place place;
	struct reconcile plan;
	struct reconcile_mail **wanted; /* whose content is needed */
	size_t wanted_count;
	struct writer_item *items[WRITER_BATCH_MAX];
	size_t item_count;
	uint64_t added, changed;
	uint64_t first_seq; /* of the events of a batch; 0: none */
	bool told;	    /* the webhooks have all of them */
};

/* ---- Rows that are there ---- */

/* What was there before we were is not news. */
static bool is_silent(const struct chunk *c, const struct reconcile_mail *m)
{
	return c->box->now.backfill && m->saved_s < c->p->began_s - FOLLOW_FRESH_S;
}

/* What the row said before. */
static struct span said_before(const struct chunk *c, const struct reconcile_mail *m)
{
	for (size_t i = 0; i < c->plan.row_count; i++)
		if (c->plan.rows[i].id == m->message_id)
			return m->action == RECONCILE_NAME ? c->plan.rows[i].box_name : c->plan.rows[i].flags;
	return SPAN_EMPTY;
}

static enum change_type type_of(enum reconcile_action action)
{
	switch (action) {
	case RECONCILE_FLAGS:
		return CHANGE_FLAGS;
	case RECONCILE_RESTORE:
		return CHANGE_RESTORED;
	case RECONCILE_ADOPT:
		return CHANGE_FILED;
	default:
		return CHANGE_MOVED;
	}
}

static void add_change(struct chunk *c, const struct reconcile_mail *m, struct change *list, size_t *count)
{
	if (m->action == RECONCILE_ADOPT && (strcmp(c->place.box_name, "INBOX") == 0 || is_silent(c, m)))
		return;
	struct change *change = follow_change(list, count, c->box, type_of(m->action));
	change->message_id = m->message_id;
	change->uid = m->uid;
	change->flags = m->flags;
	if (m->action == RECONCILE_FLAGS || m->action == RECONCILE_NAME)
		change->before = said_before(c, m);
	if (m->action == RECONCILE_MOVE)
		change->before = span_str(c->p->boxes[m->moved->box].now.name);
}

static int put_rows(struct chunk *c, struct change *list, size_t *count)
{
	for (size_t i = 0; i < c->plan.mail_count; i++) {
		const struct reconcile_mail *m = &c->plan.mails[i];
		if (m->action == RECONCILE_KEEP || m->message_id == 0)
			continue;
		follow_store_put(c->p->f->store, &c->place, m);
		add_change(c, m, list, count);
		c->changed++;
	}
	return follow_store_put_all(c->p->f->store);
}

static int change_rows(struct chunk *c)
{
	size_t count = 0;
	struct change *list = arena_calloc(&c->p->f->mem, c->plan.mail_count + 1, sizeof(*list));
	if (list == NULL)
		return ERR_LIMIT;
	int rc = follow_store_begin(c->p->f->store);
	if (rc == 0)
		rc = put_rows(c, list, &count);
	if (rc < 0) {
		follow_store_rollback(c->p->f->store);
		return rc;
	}
	return follow_commit(c->p, list, count);
}

/* ---- Rows that are not there ---- */

/* The id of a mail that we did not deliver: the same whenever it is found. */
static struct ulid id_of(const struct chunk *c, const struct reconcile_mail *m)
{
	char mem[128];
	uint8_t digest[RECONCILE_GUID_LEN];
	struct sbuf key;
	sbuf_init(&key, mem, sizeof(mem));
	sbuf_addf(&key, "%llu %s %u %u", (unsigned long long)c->p->user_id, c->place.box_guid, c->place.uid_validity, m->uid);
	reconcile_guid(sbuf_span(&key), digest);
	return ulid_make(m->received_s * 1000, digest);
}

static struct delivery *delivery_of(const struct chunk *c, const struct reconcile_mail *m)
{
	uint16_t order = 0;
	struct lmtp_session_rcpt rcpt = {.path = span_str(c->p->user->name), .accepted = true};
	struct lmtp_session_envelope envelope = {.rcpts = &rcpt, .rcpt_count = 1, .order = &order, .accepted = 1,
						 .size_bytes = m->size_bytes};
	bool ours = m->action == RECONCILE_FILL || (m->pending && ulid_valid(m->trace));
	envelope.id = id_of(c, m);
	if (ours)
		memcpy(envelope.id.text, m->trace.ptr, ULID_LEN);
	struct delivery *d = delivery_new(&envelope, m->received_s * 1000);
	d->seq = 1; /* its content is at hand */
	d->again = true;
	d->appended = !ours;
	d->rcpts[0].outcome = OUTCOME_REPLIED;
	d->rcpts[0].code = 250;
	d->rcpts[0].settled_ms = m->received_s * 1000;
	return d;
}

static void free_items(struct chunk *c)
{
	for (size_t i = 0; i < c->item_count; i++) {
		delivery_free(&c->items[i]->d);
		extract_free(&c->items[i]->x);
		free(c->items[i]);
	}
	c->item_count = 0;
}

/* The delivery has come into the index meanwhile: where its mail lies is not noted yet. */
static void compare_again(const struct chunk *c, const struct delivery *d)
{
	for (size_t i = 0; i < c->item_count; i++)
		if (c->items[i]->d == d && !d->appended && c->items[i]->place->refill_id == 0)
			uidset_add(&c->box->waiting, c->items[i]->place->at.uid, c->items[i]->place->at.uid);
}

static void tell(void *arg, const struct writer_told *told)
{
	struct chunk *c = arg;
	if (told->fate == FATE_REPEATED)
		compare_again(c, told->d);
	char key_mem[PAYLOAD_KEY_MAX];
	struct sbuf key;
	c->added += told->fate == FATE_INDEXED;
	if (told->fate == FATE_INDEXED)
		seal_note(c->p->f->config.seal, told->user_id);
	if (told->event.len == 0 || told->sequence == 0 || c->p->f->config.webhook == NULL)
		return;
	c->first_seq = c->first_seq == 0 ? told->sequence : c->first_seq;
	sbuf_init(&key, key_mem, sizeof(key_mem));
	payload_event_key(&key, told->d, told->rcpt);
	if (webhook_add(c->p->f->config.webhook, sbuf_span(&key), clock_wall_ms(), told->event, told->last) < 0)
		c->told = false;
}

static int write_items(struct chunk *c, struct writer_item *const *items, size_t count)
{
	struct follow *f = c->p->f;
	c->first_seq = 0;
	c->told = true;
	int rc = writer_write(f->writer, items, count, tell, c);
	if (rc < 0) {
		struct sbuf error;
		sbuf_init(&error, f->error, sizeof(f->error));
		sbuf_adds(&error, writer_error(f->writer));
		return rc;
	}
	if (c->first_seq == 0)
		return 0;
	if (!c->told) {
		f->unsent_checked = false;
		return ERR_TEMP;
	}
	return follow_store_sent(f->store, c->p->user_id, c->first_seq);
}

/* A batch that the database refuses is tried mail by mail. */
static int write_batch(struct chunk *c)
{
	int rc = c->item_count == 0 ? 0 : write_items(c, c->items, c->item_count);
	for (size_t i = 0; rc == ERR_PERM && i < c->item_count; i++) {
		int one = write_items(c, &c->items[i], 1);
		if (one == ERR_PERM) {
			metrics_inc(METRIC_INDEX_REFUSED);
			LOG_EVENT(LOG_ERR, &ev_index_refused, "the database refuses the rows",
				  LOG_FIELD("DELIVERY", ulid_span(&c->items[i]->d->id)),
				  LOG_FIELD_STR("ACCOUNT", c->p->user->name), LOG_FIELD_STR("REASON", c->p->f->error));
		} else if (one < 0) {
			rc = one;
		}
	}
	free_items(c);
	return rc == ERR_PERM ? 0 : rc;
}

static int take_content(void *arg, struct reconcile_mail *m, struct extract *x)
{
	struct chunk *c = arg;
	struct writer_place *place = arena_alloc(&c->p->f->mem, sizeof(*place));
	if (place == NULL) {
		extract_free(&x);
		return ERR_LIMIT;
	}
	*place = (struct writer_place){.at = {.mailbox = span_str(c->place.box_name), .mailbox_guid = span_str(c->place.box_guid),
					      .flags = m->flags, .uid_validity = c->place.uid_validity, .uid = m->uid},
				       .silent = is_silent(c, m), .refill_id = m->message_id};
	memcpy(place->mail_guid, m->guid, sizeof(place->mail_guid));
	struct writer_item *item = mem_zalloc(sizeof(*item));
	item->d = delivery_of(c, m);
	item->x = x;
	item->place = place;
	c->items[c->item_count++] = item;
	return c->item_count < WRITER_BATCH_MAX ? 0 : write_batch(c);
}

static int add_rows(struct chunk *c)
{
	int rc = follow_fetch_texts(c->p, c->box, c->wanted, c->wanted_count, take_content, c);
	if (rc == 0)
		rc = write_batch(c);
	free_items(c);
	return rc;
}

/* ---- The chunk ---- */

/* Its original was there when the mailboxes were listed, or is about to go.  A time of the future is of a host with
 * another clock: such a mail is not waited for. */
static void note_halves(struct follow_pass *p, struct reconcile_mail *mails, size_t count)
{
	pthread_mutex_lock(&p->f->lock);
	const int64_t age_ms = follow_queue_half_ms(p->user, p->scan_ms);
	pthread_mutex_unlock(&p->f->lock);
	const int64_t from_ms = p->scan_wall_ms - age_ms, until_ms = clock_wall_ms() + FOLLOW_AGE_MS;
	for (size_t i = 0; i < count && age_ms > 0; i++)
		mails[i].may_be_half = mails[i].saved_s * 1000 > from_ms && mails[i].saved_s * 1000 < until_ms;
}

static int load(struct chunk *c, const uint32_t *uids, size_t count)
{
	struct follow_pass *p = c->p;
	struct reconcile_row *rows = NULL;
	int rc = follow_fetch_mails(p, c->box, uids, count, &c->plan.mails, &c->plan.mail_count);
	/* In this order: a delivery is on its way until its row is there, so one that is not on its
	 * way any more and has no row below never comes. */
	for (size_t i = 0; i < c->plan.mail_count && rc == 0; i++)
		c->plan.mails[i].may_come = flight_has(p->f->config.flight, c->plan.mails[i].trace);
	note_halves(p, c->plan.mails, c->plan.mail_count);
	if (rc == 0)
		rc = follow_store_at(p->f->store, &p->f->mem, p->user_id, &c->place, uids, count, &rows, &c->plan.row_count);
	c->plan.rows = rows;
	if (rc == 0)
		rc = follow_store_traced(p->f->store, &p->f->mem, p->user_id, c->plan.mails, c->plan.mail_count,
					 &c->plan.deliveries, &c->plan.delivery_count);
	return rc;
}

static int sort_out(struct chunk *c)
{
	c->wanted = arena_calloc(&c->p->f->mem, c->plan.mail_count + 1, sizeof(struct reconcile_mail *));
	if (c->wanted == NULL)
		return ERR_LIMIT;
	for (size_t i = 0; i < c->plan.mail_count; i++) {
		struct reconcile_mail *m = &c->plan.mails[i];
		if (m->action == RECONCILE_NEW || m->action == RECONCILE_FILL || m->pending)
			c->wanted[c->wanted_count++] = m;
		if (m->action == RECONCILE_WAIT)
			uidset_add(&c->box->waiting, m->uid, m->uid);
	}
	return 0;
}

int follow_compare(struct follow_pass *p, struct follow_box *box, const uint32_t *uids, size_t count)
{
	struct chunk c = {.p = p, .box = box,
			  .place = {.box_guid = box->now.guid, .box_name = box->now.name, .uid_validity = box->now.uid_validity},
			  .plan = {.box_name = span_str(box->now.name), .lost = &p->lost}};
	int rc = load(&c, uids, count);
	if (rc < 0)
		return rc;
	reconcile_plan(&c.plan);
	rc = sort_out(&c);
	if (rc == 0)
		rc = change_rows(&c);
	if (rc == 0 && c.wanted_count > 0)
		rc = add_rows(&c);
	if (p->rebuild)
		follow_pass_compared(p, count, c.added, c.changed);
	metrics_add(METRIC_FOLLOW_COMPARED, count);
	return rc;
}
