/*
 * A streak lives in one of WAYS neighbouring slots that its hash names.  What
 * a refusal says is copied: rules may be replaced while a streak goes on.
 */
#include "streaks.h"

#define WAYS 8
#define MINUTE_MS 60000

void streaks_init(struct streaks *s, const struct hash_key *key,
		  void (*ended)(void *arg, const struct streak *streak), void *arg)
{
	*s = (struct streaks){.key = *key, .ended = ended, .arg = arg, .minute_ms = INT64_MIN / 2};
	s->items = mem_zalloc(STREAKS_MAX * sizeof(*s->items));
}

void streaks_done(struct streaks *s)
{
	free(s->items);
	s->items = NULL;
}

static uint64_t hash_of(const struct streaks *s, const struct session_refusal *r)
{
	char mem[SESSION_KEY_TEXT_MAX + 64];
	struct sbuf b;
	sbuf_init(&b, mem, sizeof(mem));
	sbuf_addf(&b, "%d %d %d %lld %s", (int)r->scope, r->rule == NULL ? -1 : (int)r->rule->unit, r->shadow,
		  (long long)r->length_ms, r->key);
	uint64_t hash = hash_siphash(&s->key, sbuf_span(&b));
	return hash != 0 ? hash : 1;
}

static void end(struct streaks *s, struct streak *streak)
{
	if (streak->hash != 0 && streak->noticed)
		s->ended(s->arg, streak);
	streak->hash = 0;
}

/* Its own slot, an empty one, or the one that was quiet longest. */
static struct streak *slot_for(struct streaks *s, uint64_t hash)
{
	struct streak *first = &s->items[hash % (STREAKS_MAX / WAYS) * WAYS], *best = first;
	for (struct streak *at = first; at < first + WAYS; at++) {
		if (at->hash == hash)
			return at;
		if (best->hash != 0 && (at->hash == 0 || at->last_ms < best->last_ms))
			best = at;
	}
	return best;
}

static bool notice_is_due(struct streaks *s, int64_t now_ms)
{
	if (now_ms - s->minute_ms >= MINUTE_MS) {
		s->minute_ms = now_ms;
		s->begun = 0;
	}
	if (s->begun == STREAK_NOTICES_MAX) {
		s->dropped++;
		return false;
	}
	s->begun++;
	return true;
}

const struct streak *streaks_note(struct streaks *s, const struct session_refusal *r, int64_t now_ms)
{
	uint64_t hash = hash_of(s, r);
	struct streak *streak = slot_for(s, hash);
	if (streak->hash == hash && now_ms - streak->last_ms < STREAK_QUIET_MS) {
		streak->last_ms = now_ms;
		streak->times++;
		return NULL;
	}
	end(s, streak);
	*streak = (struct streak){
		.hash = hash, .first_ms = now_ms, .last_ms = now_ms, .times = 1, .noticed = notice_is_due(s, now_ms),
		.scope = r->scope, .unit = r->rule == NULL ? UNIT_MESSAGES : r->rule->unit, .action = r->action,
		.shadow = r->shadow, .blocked = r->rule == NULL, .max = r->max, .length_ms = r->length_ms,
	};
	memcpy(streak->key, r->key, sizeof(streak->key));
	return streak->noticed ? streak : NULL;
}

void streaks_sweep(struct streaks *s, size_t count, int64_t now_ms)
{
	for (; count > 0; count--) {
		struct streak *streak = &s->items[s->sweep_at];
		s->sweep_at = (s->sweep_at + 1) % STREAKS_MAX;
		if (streak->hash != 0 && now_ms - streak->last_ms >= STREAK_QUIET_MS)
			end(s, streak);
	}
}
