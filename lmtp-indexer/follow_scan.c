/*
 * A scan asks Dovecot for the state of all mailboxes of the user and finds out
 * which UIDs must be looked at, from the cheapest source that is certain:
 *
 *   - the same state as before: nothing
 *   - new UIDs and those with a higher modseq: one search
 *   - the number of mails does not add up, so some have vanished: the lists of
 *     UIDs of both sides
 *   - never compared to the end, another UIDVALIDITY, a rebuild: all of them, and first those that are new
 *     since the last time, among which the mails are that a user has moved
 *
 * A pass may scan again while it works off an older scan's UIDs: the sets grow,
 * and `now` always is the state that the sets lead to.
 *
 * Mailboxes are listed one after the other.  A mail that is moved meanwhile may be
 * missed in both, a mailbox that is renamed under both names; so what a scan has
 * missed counts as gone only when later ones did not find it either.
 */
#include "lmtp-indexer/events.h"
#include "lmtp-indexer/follow_internal.h"

static struct follow_box *find_box(struct follow_pass *p, const char *guid)
{
	for (size_t i = 0; i < p->box_count; i++)
		if (strcmp(p->boxes[i].now.guid, guid) == 0)
			return &p->boxes[i];
	return NULL;
}

static struct follow_box *add_box(struct follow_pass *p, const struct follow_box_state *state)
{
	if (p->box_count == p->box_size) {
		p->box_size = p->box_size == 0 ? 16 : p->box_size * 2;
		p->boxes = mem_realloc(p->boxes, p->box_size * sizeof(*p->boxes));
	}
	struct follow_box *box = &p->boxes[p->box_count++];
	*box = (struct follow_box){.now = *state};
	box->now.name = mem_strdup(state->name);
	uidset_init(&box->live);
	uidset_init(&box->back);
	uidset_init(&box->waiting);
	return box;
}

static void set_name(struct follow_box *box, const char *name)
{
	char *copy = mem_strdup(name);
	free(box->now.name);
	box->now.name = copy;
}

/* What SQL knows. */
static void note_known(void *arg, const struct follow_box_state *state)
{
	struct follow_pass *p = arg;
	if (p->box_count < FOLLOW_BOXES_MAX) {
		struct follow_box *box = add_box(p, state);
		box->compared = state->uid_next != 0 && state->modseq != 0 && !p->rebuild;
	}
}

/* What only rows know. */
static void note_stray(void *arg, const struct follow_box_state *state)
{
	struct follow_pass *p = arg;
	if (find_box(p, state->guid) == NULL && p->box_count < FOLLOW_BOXES_MAX)
		add_box(p, state)->is_new = true;
}

/* ---- Rows of mails that have vanished ---- */

struct listing {
	struct follow_pass *p;
	struct follow_box *box;
	const struct uidset *there; /* UIDs in the mailbox; NULL: it is gone */
	struct uidset rows;	    /* UIDs with a row, of the present UIDVALIDITY */
	uint32_t uid_validity;
	bool overflow;
};

static void note_row(void *arg, const struct follow_row *row)
{
	struct listing *l = arg;
	if (l->there != NULL && row->uid_validity == l->uid_validity) {
		uidset_add(&l->rows, row->uid, row->uid);
		if (uidset_has(l->there, row->uid))
			return;
	}
	struct reconcile_gone gone = {.message_id = row->id, .uid = row->uid, .known = row->has_guid,
				      .box = (size_t)(l->box - l->p->boxes), .scan = l->p->scans};
	memcpy(gone.guid, row->guid, sizeof(gone.guid));
	if (reconcile_lost_add(&l->p->lost, &gone) < 0)
		l->overflow = true;
}

/* Compares the lists of UIDs; what has no row is added to MISSING. */
static int compare_lists(struct follow_pass *p, struct follow_box *box, const struct uidset *there,
			 struct uidset *missing)
{
	struct listing l = {.p = p, .box = box, .there = there, .uid_validity = box->now.uid_validity};
	uidset_init(&l.rows);
	int rc = follow_store_rows(p->f->store, p->user_id, box->now.guid, note_row, &l);
	if (rc == 0 && missing != NULL)
		uidset_subtract(there, &l.rows, missing);
	uidset_done(&l.rows);
	/* What did not fit is found by the next pass. */
	p->once_more = p->once_more || l.overflow;
	return rc;
}

static int list_all(struct follow_pass *p, struct follow_box *box, struct uidset *there)
{
	static const char *const words[] = {"all"};
	return follow_fetch_uids(p, box, words, 1, there);
}

/* ---- The kinds of scans of one mailbox ---- */

/* From the ground up: every mail is compared, last those below NEW_FROM where they can wait. */
static int scan_whole(struct follow_pass *p, struct follow_box *box, uint32_t new_from)
{
	struct uidset there, before;
	uidset_init(&there);
	uidset_init(&before);
	int rc = list_all(p, box, &there);
	if (rc == 0)
		rc = compare_lists(p, box, &there, NULL);
	if (rc == 0 && box->now.backfill) {
		uidset_add(&before, 1, new_from - 1);
		uidset_subtract(&there, &before, &box->live);
		uidset_subtract(&there, &box->live, &box->back);
	} else if (rc == 0) {
		uidset_add_set(&box->live, &there);
	}
	uidset_done(&there);
	uidset_done(&before);
	return rc;
}

/* Mails have vanished, or came where none were expected. */
static int scan_lists(struct follow_pass *p, struct follow_box *box)
{
	struct uidset there, missing;
	uidset_init(&there);
	uidset_init(&missing);
	int rc = list_all(p, box, &there);
	if (rc == 0)
		rc = compare_lists(p, box, &there, &missing);
	if (rc == 0)
		uidset_subtract(&missing, &box->back, &box->live);
	uidset_done(&there);
	uidset_done(&missing);
	return rc;
}

/* OLD is the state that the rows and sets are at, box->now the new one. */
static int scan_changes(struct follow_pass *p, struct follow_box *box, const struct follow_box_state *old)
{
	char fresh[32], modseq[32];
	struct sbuf f, m;
	struct uidset found, none;
	sbuf_init(&f, fresh, sizeof(fresh));
	sbuf_init(&m, modseq, sizeof(modseq));
	sbuf_addf(&f, "%u:%u", old->uid_next, UINT32_MAX);
	sbuf_addf(&m, "%llu", (unsigned long long)old->modseq + 1);
	const char *words[] = {"(", "uid", fresh, "or", "modseq", modseq, ")"};
	uidset_init(&found);
	uidset_init(&none);
	int rc = follow_fetch_uids(p, box, words, 7, &found);
	uint64_t arrived = 0;
	for (size_t i = 0; i < found.count && rc == 0; i++) {
		uint32_t first = found.ranges[i].first, last = found.ranges[i].last;
		/* `N:*` also means the last mail, wherever it is; what came since is of the next scan. */
		last = last < box->now.uid_next ? last : box->now.uid_next - 1;
		uidset_add(&box->live, first, last);
		first = first > old->uid_next ? first : old->uid_next;
		arrived += first <= last ? last - first + 1 : 0;
	}
	uidset_done(&found);
	if (rc == 0 && old->messages + arrived != box->now.messages)
		rc = scan_lists(p, box);
	return rc;
}

static bool same_state(const struct follow_box_state *a, const struct follow_box_state *b)
{
	return a->uid_validity == b->uid_validity && a->uid_next == b->uid_next && a->messages == b->messages &&
	       a->modseq == b->modseq;
}

/* ---- Structure: mailboxes that are new, renamed or gone ---- */

/* The state of a mailbox that is not compared to the end yet. */
static int note_incomplete(struct follow_pass *p, const struct follow_box *box, uint32_t new_from)
{
	struct follow_box_state state = box->now;
	state.uid_next = new_from;
	state.modseq = 0;
	return follow_store_box(p->f->store, p->user_id, &state);
}

static int tell_new(struct follow_pass *p, struct follow_box *box, uint32_t new_from)
{
	size_t count = 0;
	struct change *list = arena_calloc(&p->f->mem, 1, sizeof(*list));
	if (list == NULL)
		return ERR_LIMIT;
	int rc = follow_store_begin(p->f->store);
	if (rc == 0)
		rc = note_incomplete(p, box, new_from);
	if (rc == 0 && box->is_new && !p->newcomer)
		follow_change(list, &count, box, CHANGE_BOX_CREATED);
	if (rc == 0)
		rc = follow_commit(p, list, count);
	else
		follow_store_rollback(p->f->store);
	box->is_new = false;
	return rc;
}

static int rename_box(struct follow_pass *p, struct follow_box *box, const char *name)
{
	size_t count = 0;
	struct span before;
	struct change *list = arena_calloc(&p->f->mem, 1, sizeof(*list));
	if (list == NULL || arena_dup(&p->f->mem, span_str(box->now.name), &before) < 0)
		return ERR_LIMIT;
	set_name(box, name);
	int rc = follow_store_begin(p->f->store);
	if (rc == 0)
		rc = follow_store_rename(p->f->store, p->user_id, box->now.guid, name);
	if (rc < 0) {
		follow_store_rollback(p->f->store);
		return rc;
	}
	follow_change(list, &count, box, CHANGE_BOX_RENAMED)->before = before;
	return follow_commit(p, list, count);
}

/* ---- The whole ---- */

/* What Dovecot says of one mailbox; what follows from it is done when all is
 * known, since doveadm answers one question at a time. */
struct seen {
	struct seen *next;
	struct follow_box_state state;
};

static int note_seen(struct follow_pass *p, const struct follow_box_state *state)
{
	struct seen **list = p->seen, *s = arena_alloc(&p->f->mem, sizeof(*s));
	struct span name;
	if (s == NULL || arena_dup(&p->f->mem, span_str(state->name), &name) < 0)
		return ERR_LIMIT;
	s->state = *state;
	s->state.name = arena_strdup(&p->f->mem, name);
	if (s->state.name == NULL)
		return ERR_LIMIT;
	s->next = *list;
	*list = s;
	return 0;
}

static int scan_box(struct follow_pass *p, const struct follow_box_state *state)
{
	struct follow_box *box = find_box(p, state->guid);
	int rc = 0;
	if (box == NULL) {
		if (p->box_count >= FOLLOW_BOXES_MAX) {
			p->unfollowed++;
			return 0;
		}
		box = add_box(p, state);
		p->still = false;
		box->is_new = true;
		box->now.backfill = p->newcomer || p->rebuild;
	}
	box->compared = box->compared && !box->vanished;
	box->vanished = box->buried = false;
	box->listed = true;
	if (strcmp(box->now.name, state->name) != 0) {
		p->still = false;
		rc = rename_box(p, box, state->name);
	}
	struct follow_box_state old = box->now;
	char *name = box->now.name;
	bool backfill = box->now.backfill || (p->rebuild && p->scans == 1);
	box->now = *state;
	box->now.name = name;
	box->now.backfill = backfill;
	if (rc < 0)
		return rc;
	p->still = p->still && box->compared && same_state(&old, state);
	if (!box->compared || old.uid_validity != state->uid_validity) {
		bool was_known = old.uid_next != 0 && old.uid_validity == state->uid_validity;
		uint32_t new_from = was_known && old.uid_next < state->uid_next ? old.uid_next : state->uid_next;
		rc = tell_new(p, box, new_from);
		if (rc == 0)
			rc = scan_whole(p, box, new_from);
		box->changed = true;
	} else if (!same_state(&old, state)) {
		rc = scan_changes(p, box, &old);
		box->changed = true;
	}
	box->compared = true;
	return rc;
}

static int scan_vanished(struct follow_pass *p)
{
	int rc = 0;
	for (size_t i = 0; i < p->box_count && rc == 0; i++) {
		struct follow_box *box = &p->boxes[i];
		if (box->listed || box->vanished)
			continue;
		uidset_reset(&box->live);
		uidset_reset(&box->back);
		uidset_reset(&box->waiting);
		rc = compare_lists(p, box, NULL, NULL);
		box->vanished = true;
		p->still = false;
		box->vanished_scan = p->scans;
	}
	return rc;
}

static int load(struct follow_pass *p)
{
	int rc = follow_store_boxes(p->f->store, p->user_id, note_known, p);
	p->newcomer = p->box_count == 0;
	return rc < 0 || !p->rebuild ? rc : follow_store_row_boxes(p->f->store, p->user_id, note_stray, p);
}

static void tell_unfollowed(const struct follow_pass *p)
{
	char mem[128];
	struct sbuf reason;
	sbuf_init(&reason, mem, sizeof(mem));
	sbuf_addf(&reason, "%zu mailboxes beyond the first %u are not followed", p->unfollowed, FOLLOW_BOXES_MAX);
	LOG_EVENT(LOG_WARNING, &ev_follow_refused, "a user's mailboxes cannot be compared",
		  LOG_FIELD_STR("ACCOUNT", p->user->name), LOG_FIELD("REASON", sbuf_span(&reason)));
}

static int load_open(struct follow_pass *p)
{
	p->open_scan = p->scans;
	int rc = follow_store_open(p->f->store, p->user_id, p->rebuild, p->open, &p->open_count);
	p->once_more = p->once_more || p->open_count == FOLLOW_OPEN_MAX;
	return rc;
}

int follow_scan(struct follow_pass *p)
{
	struct seen *seen = NULL;
	arena_reset(&p->f->mem);
	p->scans++;
	p->still = p->scans > 1;
	p->scan_ms = clock_boot_ms();
	p->scan_wall_ms = clock_wall_ms();
	int rc = p->open_count == 0 ? load_open(p) : 0;
	if (rc == 0 && p->scans == 1)
		rc = load(p);
	for (size_t i = 0; i < p->box_count; i++) {
		struct follow_box *box = &p->boxes[i];
		box->listed = false;
		/* The state of the mailbox does not tell of them again. */
		uidset_add_set(&box->live, &box->waiting);
		uidset_reset(&box->waiting);
	}
	p->seen = &seen;
	if (rc == 0)
		rc = follow_fetch_boxes(p, note_seen);
	for (const struct seen *s = seen; s != NULL && rc == 0; s = s->next)
		rc = scan_box(p, &s->state);
	if (rc == 0)
		rc = scan_vanished(p);
	p->seen = NULL;
	if (p->scans == 1 && p->unfollowed > 0)
		tell_unfollowed(p);
	return rc;
}
