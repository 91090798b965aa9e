/*
 * A pass is worked off in steps, so that users take turns: first what has
 * changed, then the rows whose mails have vanished and were not found elsewhere,
 * then what was there before, last the state of the mailboxes.
 */
#include "lmtp-indexer/events.h"
#include "lmtp-indexer/follow_internal.h"
#include "lmtp-indexer/server.h"

struct change *follow_change(struct change *list, size_t *count, const struct follow_box *box, enum change_type type)
{
	struct change *c = &list[(*count)++];
	*c = (struct change){.type = type};
	if (box != NULL) {
		c->mailbox = span_str(box->now.name);
		c->mailbox_guid = span_str(box->now.guid);
		c->uid_validity = box->now.uid_validity;
	}
	return c;
}

/* ---- Commit ---- */

static int tell_webhooks(struct follow_pass *p, const struct follow_event *events, size_t count)
{
	int64_t now_ms = clock_wall_ms();
	for (size_t i = 0; i < count; i++) {
		int rc = webhook_add(p->f->config.webhook, span_str(events[i].key), now_ms, events[i].json, i + 1 == count);
		if (rc < 0)
			return ERR_TEMP;
	}
	return 0;
}

int follow_commit(struct follow_pass *p, const struct change *changes, size_t count)
{
	struct follow_store *store = p->f->store;
	bool hooks = p->f->config.webhook != NULL && count > 0;
	struct follow_event *events = NULL;
	uint64_t first = 0;
	int rc = follow_store_events(store, &p->f->mem, p->user_id, span_str(p->user->name), changes, count, hooks, &events,
				     &first);
	if (rc < 0) {
		follow_store_rollback(store);
		return rc;
	}
	pthread_mutex_lock(p->f->config.order);
	rc = follow_store_commit(store);
	if (rc == 0 && hooks)
		rc = tell_webhooks(p, events, count);
	pthread_mutex_unlock(p->f->config.order);
	/* What stays noted goes out once more: at least once, under the same id. */
	if (rc < 0 && hooks)
		p->f->unsent_checked = false;
	metrics_add(METRIC_FOLLOW_CHANGES, rc == 0 ? count : 0);
	return rc < 0 || !hooks ? rc : follow_store_sent(store, p->user_id, first);
}

/* ---- The steps ---- */

static int compare_some(struct follow_pass *p, bool back)
{
	const size_t most = back && follow_is_busy(p->f) ? FOLLOW_CHUNK_BUSY : FOLLOW_CHUNK;
	for (size_t i = 0; i < p->box_count; i++) {
		struct follow_box *box = &p->boxes[i];
		struct uidset *set = back ? &box->back : &box->live;
		uint32_t uids[FOLLOW_CHUNK];
		size_t n = uidset_take(set, back, uids, most);
		if (n > 0)
			return follow_compare(p, box, uids, n);
	}
	return ERR_NOT_FOUND;
}

/* The next row whose mail was found nowhere; NULL without one. */
static struct reconcile_gone *next_lost(struct follow_pass *p)
{
	while (p->lost_done < p->lost.count && p->lost.items[p->lost_done]->taken)
		p->lost_done++;
	return p->lost_done < p->lost.count ? p->lost.items[p->lost_done] : NULL;
}

/*
 * Whether what scan number SCAN has missed was looked for often enough: by another one.  While users go on to
 * move mails, which may be missed again, that must have found all as it was, so that there is a moment at which all
 * mailboxes were seen; where they never stand still, several looks must do.
 */
static bool is_confirmed(struct follow_pass *p, uint32_t scan)
{
	pthread_mutex_lock(&p->f->lock);
	const bool amid = follow_queue_half_ms(p->user, p->scan_ms) > 0;
	pthread_mutex_unlock(&p->f->lock);
	return p->scans - scan >= (amid && !p->still ? FOLLOW_LOOKS_AMID : 1);
}

static bool is_unconfirmed(struct follow_pass *p)
{
	const struct reconcile_gone *gone = next_lost(p);
	if (gone != NULL)
		return !is_confirmed(p, gone->scan);
	for (size_t i = 0; i < p->box_count; i++)
		if (p->boxes[i].vanished && !p->boxes[i].buried && !is_confirmed(p, p->boxes[i].vanished_scan))
			return true;
	return false;
}

static int bury_some(struct follow_pass *p)
{
	size_t count = 0, looked = 0;
	struct change *list = arena_calloc(&p->f->mem, FOLLOW_CHUNK, sizeof(*list));
	if (list == NULL)
		return ERR_LIMIT;
	int rc = follow_store_begin(p->f->store);
	for (const struct reconcile_gone *gone = next_lost(p);
	     gone != NULL && is_confirmed(p, gone->scan) && looked < FOLLOW_CHUNK && rc == 0; gone = next_lost(p)) {
		const struct follow_box *box = &p->boxes[gone->box];
		const char *reason = box->vanished ? "mailbox_deleted" : "expunged";
		bool changed = false;
		p->lost_done++;
		looked++;
		rc = follow_store_delete(p->f->store, gone->message_id, box->now.guid, gone->uid, reason, &changed);
		if (rc < 0 || !changed)
			continue;
		struct change *c = follow_change(list, &count, box, CHANGE_DELETED);
		c->message_id = gone->message_id;
		c->uid = gone->uid;
		c->reason = span_str(reason);
	}
	if (rc < 0) {
		follow_store_rollback(p->f->store);
		return rc;
	}
	pthread_mutex_lock(&p->f->lock);
	p->f->job.removed += p->rebuild ? count : 0;
	pthread_mutex_unlock(&p->f->lock);
	return follow_commit(p, list, count);
}

static int bury_boxes(struct follow_pass *p)
{
	for (size_t i = 0; i < p->box_count; i++) {
		struct follow_box *box = &p->boxes[i];
		size_t count = 0;
		struct change change;
		if (!box->vanished || box->buried)
			continue;
		int rc = follow_store_begin(p->f->store);
		if (rc == 0)
			rc = follow_store_box_gone(p->f->store, p->user_id, box->now.guid);
		if (rc < 0) {
			follow_store_rollback(p->f->store);
			return rc;
		}
		if (!box->is_new)
			follow_change(&change, &count, box, CHANGE_BOX_DELETED);
		rc = follow_commit(p, &change, count);
		if (rc < 0)
			return rc;
		box->buried = true;
	}
	return ERR_NOT_FOUND;
}

bool follow_waits(const struct follow_pass *p)
{
	for (size_t i = 0; i < p->box_count; i++)
		if (p->boxes[i].waiting.count > 0)
			return true;
	return false;
}

/* Leaves those of the open deliveries that still have no place. */
static int sift_open(struct follow_pass *p)
{
	size_t count = 0, kept = 0, at = 0;
	uint64_t *still = arena_calloc(&p->f->mem, FOLLOW_OPEN_MAX, sizeof(*still));
	if (still == NULL)
		return ERR_LIMIT;
	int rc = follow_store_open(p->f->store, p->user_id, p->rebuild, still, &count);
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < p->open_count; i++) {
		while (at < count && still[at] < p->open[i])
			at++;
		if (at < count && still[at] == p->open[i])
			p->open[kept++] = p->open[i];
	}
	p->open_count = kept;
	/* Those that came since the list was made are of another pass. */
	p->once_more = p->once_more || count > kept;
	return 0;
}

/* Deliveries that were known before two scans, and that no mailbox has. */
static int end_open(struct follow_pass *p)
{
	size_t count = 0;
	struct change *list = arena_calloc(&p->f->mem, p->open_count + 1, sizeof(*list));
	if (list == NULL)
		return ERR_LIMIT;
	int rc = follow_store_begin(p->f->store);
	for (size_t i = 0; i < p->open_count && rc == 0; i++) {
		bool changed = false;
		rc = follow_store_not_stored(p->f->store, p->open[i], &changed);
		if (rc < 0 || !changed)
			continue;
		struct change *c = follow_change(list, &count, NULL, CHANGE_DELETED);
		c->message_id = p->open[i];
		c->reason = SPAN_LIT("not_stored");
	}
	if (rc < 0) {
		follow_store_rollback(p->f->store);
		return rc;
	}
	p->open_count = 0;
	return follow_commit(p, list, count);
}

static int store_boxes(struct follow_pass *p)
{
	int rc = follow_store_begin(p->f->store);
	for (size_t i = 0; i < p->box_count && rc == 0; i++) {
		struct follow_box *box = &p->boxes[i];
		if (!box->changed || !box->listed || box->waiting.count > 0)
			continue;
		box->now.backfill = false;
		rc = follow_store_box(p->f->store, p->user_id, &box->now);
	}
	if (rc < 0) {
		follow_store_rollback(p->f->store);
		return rc;
	}
	return follow_commit(p, NULL, 0);
}

static int finish(struct follow_pass *p)
{
	int rc = 0;
	if (p->open_count > 0 && !follow_waits(p)) {
		rc = sift_open(p);
		if (rc == 0 && p->open_count > 0 && !is_confirmed(p, p->open_scan))
			return follow_scan(p);
		if (rc == 0 && p->open_count > 0)
			rc = end_open(p);
	}
	if (rc == 0)
		rc = store_boxes(p);
	return rc < 0 ? rc : ERR_NOT_FOUND;
}

bool follow_is_backfill(struct follow_pass *p)
{
	bool back = false;
	for (size_t i = 0; i < p->box_count; i++) {
		const struct follow_box *box = &p->boxes[i];
		if (box->live.count > 0 || (box->vanished && !box->buried))
			return false;
		back = back || box->back.count > 0;
	}
	return back && next_lost(p) == NULL;
}

int follow_step(struct follow_pass *p)
{
	arena_reset(&p->f->mem);
	int rc = compare_some(p, false);
	if (rc == ERR_NOT_FOUND && is_unconfirmed(p)) {
		rc = follow_scan(p);
		p->look_ms = p->still ? 0 : p->scan_ms + FOLLOW_LOOK_EACH_MS;
		return rc;
	}
	if (rc == ERR_NOT_FOUND && next_lost(p) != NULL)
		return bury_some(p);
	if (rc == ERR_NOT_FOUND)
		rc = bury_boxes(p);
	if (rc == ERR_NOT_FOUND)
		rc = compare_some(p, true);
	return rc == ERR_NOT_FOUND ? finish(p) : rc;
}
