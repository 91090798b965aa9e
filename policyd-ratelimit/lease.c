/*
 * Invariant, for each counter: what this daemon has counted plus left plus
 * credit is never above what the store has of it (counts plus lease), as long
 * as the lease has not lapsed and nothing was counted by the local share.  A
 * lease is in both tables and in the list by use; one whose sync is on its way
 * or that somebody waits for is never freed.
 */
#include "lease.h"

#include "policyd-ratelimit/subject.h"

void leases_init(struct leases *ls, const struct lease_settings *settings)
{
	*ls = (struct leases){.settings = *settings, .daemons = 1};
	htab_init(&ls->by_hash, SIZE_MAX);
	htab_init(&ls->by_name, SIZE_MAX);
}

static struct span hash_key_of(const uint64_t *hash)
{
	return span_of(hash, sizeof(*hash));
}

static void use_unlink(struct leases *ls, struct lease *l)
{
	*(l->newer != NULL ? &l->newer->older : &ls->newest) = l->older;
	*(l->older != NULL ? &l->older->newer : &ls->oldest) = l->newer;
}

static void use_link(struct leases *ls, struct lease *l, int64_t now_ms)
{
	l->touched_ms = now_ms;
	l->newer = NULL;
	l->older = ls->newest;
	*(l->older != NULL ? &l->older->newer : &ls->oldest) = l;
	ls->newest = l;
}

static void dirty_unlink(struct leases *ls, struct lease *l)
{
	if (!l->dirty)
		return;
	*(l->dirty_prev != NULL ? &l->dirty_prev->dirty_next : &ls->dirty_first) = l->dirty_next;
	*(l->dirty_next != NULL ? &l->dirty_next->dirty_prev : &ls->dirty_last) = l->dirty_prev;
	l->dirty = l->low = false;
	ls->dirty_count--;
}

/* To be sent; NOW: before all others. */
static void dirty_link(struct leases *ls, struct lease *l, bool now, int64_t now_ms)
{
	if (l->dirty && (!now || l->low))
		return;
	dirty_unlink(ls, l);
	l->dirty = true;
	l->low = now;
	l->dirty_ms = now_ms;
	l->dirty_prev = now ? NULL : ls->dirty_last;
	l->dirty_next = now ? ls->dirty_first : NULL;
	*(l->dirty_prev != NULL ? &l->dirty_prev->dirty_next : &ls->dirty_first) = l;
	*(l->dirty_next != NULL ? &l->dirty_next->dirty_prev : &ls->dirty_last) = l;
	ls->dirty_count++;
	ls->any_low = ls->any_low || now;
}

static void lease_drop(struct leases *ls, struct lease *l)
{
	dirty_unlink(ls, l);
	use_unlink(ls, l);
	(void)htab_del(&ls->by_hash, hash_key_of(&l->hash));
	(void)htab_del(&ls->by_name, span_str(l->name));
	free(l->name);
	free(l);
	ls->count--;
}

void leases_done(struct leases *ls)
{
	while (ls->newest != NULL)
		lease_drop(ls, ls->newest);
	htab_done(&ls->by_hash, NULL);
	htab_done(&ls->by_name, NULL);
}

struct lease *leases_find(const struct leases *ls, uint64_t hash)
{
	return htab_get(&ls->by_hash, hash_key_of(&hash));
}

struct lease *leases_find_name(const struct leases *ls, struct span name)
{
	return htab_get(&ls->by_name, name);
}

static bool is_busy(const struct lease *l)
{
	return l->asking || l->waiters != NULL;
}

#define EVICT_SCAN 64 /* of the oldest, that are looked at for one to forget */

static bool make_room(struct leases *ls)
{
	struct lease *l = ls->oldest;
	if (ls->count < ls->settings.max_keys)
		return true;
	for (int i = 0; l != NULL && i < EVICT_SCAN; i++, l = l->newer)
		if (!is_busy(l)) {
			lease_drop(ls, l);
			ls->evicted++;
			return true;
		}
	return false;
}

struct lease *leases_make(struct leases *ls, const struct lease_kind *kind, struct span name, int64_t now_ms)
{
	struct lease *l = leases_find(ls, kind->hash);
	if (l != NULL) {
		use_unlink(ls, l);
		use_link(ls, l, now_ms);
		return l;
	}
	if (name.len == 0 || name.len > LEASE_NAME_MAX || !make_room(ls))
		return NULL;
	l = mem_zalloc(sizeof(*l));
	l->hash = kind->hash;
	l->unit = kind->unit;
	l->class = kind->class;
	l->length_ms = kind->length_ms;
	l->name = span_dup(name);
	if (htab_put(&ls->by_hash, hash_key_of(&l->hash), l, NULL) < 0 ||
	    htab_put(&ls->by_name, span_str(l->name), l, NULL) < 0)
		PANIC("a table without a cap is full");
	use_link(ls, l, now_ms);
	ls->count++;
	return l;
}

/* ---- the decision ---- */

/* Tokens that may be spent now. */
static uint64_t at_hand(const struct lease *l, int64_t now_ms)
{
	return l->credit + (now_ms < l->expires_ms ? l->left : 0);
}

enum lease_answer leases_check(const struct leases *ls, const struct lease *l, uint64_t amount, int64_t now_ms)
{
	if (at_hand(l, now_ms) >= amount)
		return LEASE_READY;
	if (!ls->shared)
		return LEASE_LOCAL;
	return now_ms < l->denied_ms && amount >= l->denied_need ? LEASE_DENIED : LEASE_ASK;
}

uint64_t leases_share_of(const struct leases *ls, uint64_t max)
{
	uint64_t share;
	if (ls->settings.local_percent > 0)
		share = max / 100 * ls->settings.local_percent + max % 100 * ls->settings.local_percent / 100;
	else
		share = max / (ls->daemons > 0 ? ls->daemons : 1);
	return share == 0 && max > 0 ? 1 : share;
}

uint64_t leases_others(const struct leases *ls, uint64_t hash, int64_t now_ms)
{
	const struct lease *l = leases_find(ls, hash);
	return l != NULL && l->others_ms != 0 && now_ms - l->others_ms <= l->length_ms ? l->others : 0;
}

bool leases_fit(struct leases *ls, uint64_t hash, uint64_t amount, uint64_t max, uint64_t used, int64_t now_ms)
{
	const struct lease *l = leases_find(ls, hash);
	if (max == UINT64_MAX)
		return true;
	if (l != NULL && at_hand(l, now_ms) >= amount)
		return used <= max && amount <= max - used;
	/* What the store has not granted does not fit, where it has spoken at all. */
	if (ls->shared && l != NULL && l->others_ms != 0 && !l->unanswered)
		return false;
	ls->by_share++;
	uint64_t share = leases_share_of(ls, max), others = leases_others(ls, hash, now_ms);
	share = others >= max ? 0 : share < max - others ? share : max - others;
	return used <= share && amount <= share - used;
}

void leases_spend(struct leases *ls, uint64_t hash, uint64_t amount, int64_t now_ms)
{
	struct lease *l = leases_find(ls, hash);
	if (l == NULL || amount == 0)
		return;
	uint64_t credit = amount < l->credit ? amount : l->credit, rest = amount - credit;
	l->credit -= credit;
	l->unsent += l->asking ? rest : 0;
	l->left = l->left > rest ? l->left - rest : 0;
	l->spent_ms = now_ms;
	/* More is fetched before the last token is gone. */
	dirty_link(ls, l, rest > 0 && ls->shared && l->left < l->granted / 4, now_ms);
}

void leases_refund(struct leases *ls, uint64_t hash, uint64_t amount, int64_t now_ms)
{
	struct lease *l = leases_find(ls, hash);
	if (l == NULL || amount == 0)
		return;
	l->credit += amount;
	dirty_link(ls, l, false, now_ms);
}

int64_t leases_free_at(const struct leases *ls, uint64_t hash, int64_t now_ms)
{
	const struct lease *l = leases_find(ls, hash);
	return l != NULL && l->free_at_ms > now_ms ? l->free_at_ms : 0;
}

/* ---- syncs ---- */

/* Own counts, each as old as the youngest event of its bucket may be. */
static size_t counts_format(struct table *table, const struct lease *l, int64_t now_ms, char out[LEASE_COUNTS_MAX])
{
	struct table_state state;
	struct sbuf b;
	int64_t width = table->classes[l->class].width_ms;
	sbuf_init(&b, out, LEASE_COUNTS_MAX);
	if (table_read(table, l->hash, l->class, now_ms, &state) < 0)
		return 0;
	for (unsigned i = 0; i < state.count; i++) {
		int64_t newest = ((int64_t)(state.base - state.ages[i]) + 1) * width - 1;
		sbuf_addf(&b, "%s%lld:%llu", i > 0 ? " " : "", (long long)(newest < now_ms ? now_ms - newest : 0),
			  (unsigned long long)state.amounts[i]);
	}
	if (!sbuf_ok(&b))
		PANIC("counts of one window do not fit");
	return b.len;
}

void leases_sync_begin(struct leases *ls, struct lease *l, struct table *table, uint64_t need, int64_t now_ms,
		       struct lease_sync *sync_out)
{
	const struct lease_settings *set = &ls->settings;
	struct lease_sync *s = sync_out;
	dirty_unlink(ls, l);
	if (now_ms >= l->expires_ms)
		l->left = 0;
	l->left += l->credit;
	l->credit = 0;
	/* What came back is a lease of its own until the answer is there. */
	if (l->left > 0 && now_ms >= l->expires_ms)
		l->expires_ms = now_ms + set->lease_ms;
	s->keep = l->left;
	s->need = need > l->left ? need : 0;
	s->max = l->max;
	s->cap = l->max / 100 * set->max_percent + l->max % 100 * set->max_percent / 100;
	/* Who does not use a key does not take more of it. */
	bool wanted = need > 0 || (l->spent_ms != 0 && now_ms - l->spent_ms < set->lease_ms / 4);
	s->share_percent = wanted && ls->shared && !l->recalled ? set->share_percent : 0;
	l->recalled = false;
	s->length_ms = l->length_ms;
	s->lease_ms = set->lease_ms;
	s->counts_len = counts_format(table, l, now_ms, s->counts);
	l->asking = true;
	l->unsent = 0;
	l->sent_ms = now_ms;
}

void leases_sync_done(struct leases *ls, struct lease *l, const struct lease_grant *grant, uint64_t need,
		      int64_t now_ms)
{
	l->asking = false;
	l->unanswered = false;
	l->granted = grant->granted;
	l->left = grant->granted > l->unsent ? grant->granted - l->unsent : 0;
	l->unsent = 0;
	l->expires_ms = l->sent_ms + ls->settings.lease_ms;
	l->others = grant->others;
	l->others_leased = grant->others_leased;
	l->others_ms = now_ms;
	l->free_at_ms = grant->free_in_ms >= 0 ? now_ms + grant->free_in_ms : 0;
	if (need == 0)
		return;
	/* Where others hold the rest, they are asked to give it back. */
	bool denied = grant->granted < need && grant->others_leased == 0;
	l->denied_ms = denied ? now_ms + LEASE_DENY_MS : 0;
	l->denied_need = need;
}

void leases_sync_failed(struct leases *ls, struct lease *l, int64_t now_ms)
{
	l->asking = false;
	l->unanswered = true;
	l->unsent = 0;
	l->denied_ms = 0;
	dirty_link(ls, l, false, now_ms);
}

void leases_sync_late(struct lease *l, uint64_t need, int64_t now_ms)
{
	l->unanswered = l->unanswered || l->asking || l->others_ms == 0;
	if (l->unanswered)
		return;
	l->denied_ms = now_ms + LEASE_DENY_MS;
	l->denied_need = need;
}

void leases_recall(struct leases *ls, struct lease *l, int64_t now_ms)
{
	l->left = 0;
	l->recalled = true;
	dirty_link(ls, l, true, now_ms);
}

void leases_forget(struct leases *ls, struct lease *l, int64_t now_ms)
{
	l->left = l->credit = 0;
	l->others = l->others_leased = 0;
	l->others_ms = l->denied_ms = l->free_at_ms = 0;
	dirty_link(ls, l, true, now_ms);
}

struct lease *leases_next_dirty(struct leases *ls, int64_t now_ms)
{
	for (struct lease *l = ls->dirty_first; l != NULL; l = l->dirty_next) {
		if (!l->low && now_ms - l->dirty_ms < LEASE_FLUSH_MS)
			return NULL;
		if (!l->asking)
			return l;
	}
	return NULL;
}

void leases_mark_all(struct leases *ls, int64_t now_ms)
{
	for (struct lease *l = ls->newest; l != NULL; l = l->older) {
		/* The store may have granted it to somebody else since. */
		l->left = l->credit = 0;
		dirty_unlink(ls, l);
		dirty_link(ls, l, false, now_ms - LEASE_FLUSH_MS);
	}
}

void leases_give_up(struct leases *ls, int64_t now_ms)
{
	for (struct lease *l = ls->newest; l != NULL; l = l->older)
		if ((l->left > 0 && now_ms < l->expires_ms) || l->dirty)
			leases_recall(ls, l, now_ms);
}

bool leases_all_sent(const struct leases *ls, int64_t since_ms)
{
	const struct lease *l = ls->dirty_first;
	while (l != NULL && l->low)
		l = l->dirty_next;
	return l == NULL || l->dirty_ms >= since_ms;
}

void leases_sweep(struct leases *ls, int64_t now_ms)
{
	while (ls->oldest != NULL && !is_busy(ls->oldest) &&
	       now_ms - ls->oldest->touched_ms > ls->oldest->length_ms + ls->oldest->length_ms / WINDOW_BUCKETS)
		lease_drop(ls, ls->oldest);
}

void leases_outstanding(const struct leases *ls, int64_t now_ms, uint64_t tokens_out[UNIT_COUNT])
{
	memset(tokens_out, 0, UNIT_COUNT * sizeof(*tokens_out));
	/* A key that was not used for so long has no lease any more. */
	for (const struct lease *l = ls->newest; l != NULL; l = l->older)
		if (now_ms < l->expires_ms)
			tokens_out[l->unit] += l->left;
		else if (now_ms - l->touched_ms > 2 * ls->settings.lease_ms)
			break;
}
