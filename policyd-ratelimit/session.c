/*
 * Invariants: an open transaction's holds are charged to the table, those of a
 * detached or ended one are not; the clock of the session never goes back; a
 * request changes either all counters of its message or none.
 */
#include "session_internal.h"

#include "policyd-ratelimit/verdict.h"

#define PREFETCH_MAX 8 /* counters of a message that is over: more do not come in time */

static int key_hash(const struct session *s, const struct rule *rule, const struct subject *subject,
		    uint64_t *hash_out)
{
	char mem[SUBJECT_CLIENT_KEY_MAX];
	struct span key;
	int rc = subject_key(subject, rule, mem, &key);
	if (rc < 0)
		return rc;
	*hash_out = hash_siphash(&s->table->key, key);
	return 0;
}

int session_hash(const struct session *s, const struct rule *rule, const struct rule_window *window,
		 const struct subject *subject, uint64_t *hash_out)
{
	uint64_t hash;
	int rc = key_hash(s, rule, subject, &hash);
	if (rc < 0)
		return rc;
	*hash_out = table_hash(hash, window->id);
	return 0;
}

/* ---- transactions ---- */

static void holds_refund(struct session *s, struct txn *txn)
{
	if (txn->state != TXN_OPEN)
		return;
	for (size_t i = 0; i < txn->hold_count; i++)
		session_refund(s, &txn->holds[i].mark);
	s->stats.refunds += txn->hold_count > 0;
}

/* Its holds go back without END-OF-MESSAGE; only once for one that was detached. */
static void txn_give_up(struct session *s, struct txn *txn)
{
	holds_refund(s, txn);
	if (txn->state == TXN_OPEN && txn->hold_count > 0 && txn->refusal.action == PROTO_DUNNO)
		wiring_unended(&s->wiring, s->now_ms);
}

static void txn_abandon(struct session *s, struct txn *txn)
{
	txn_give_up(s, txn);
	txn_drop(&s->txns, txn);
}

static struct txn *txn_begin(struct session *s, uint64_t digest)
{
	struct txn *txn = txn_make(&s->txns, digest, s->now_ms);
	if (txn == NULL) {
		txn_abandon(s, txn_oldest(&s->txns));
		txn = txn_make(&s->txns, digest, s->now_ms);
	}
	s->stats.transactions++;
	return txn;
}

static void txn_end(struct session *s, struct txn *txn)
{
	txn_touch(&s->txns, txn, TXN_ENDED, s->now_ms);
	if (s->txns.ended.count <= TXN_ENDED_MAX)
		return;
	txn_drop(&s->txns, txn_list_oldest(&s->txns, &s->txns.ended));
	txn_prefetch_ended(&s->txns);
}

/*
 * A detached transaction that goes on: its holds are charged again if all fit,
 * else it begins anew.
 */
static void txn_reattach(struct session *s, struct txn *txn)
{
	bool fits = true;
	for (size_t i = 0; fits && i < txn->hold_count; i++) {
		const struct txn_hold *h = &txn->holds[i];
		fits = session_fits(s, h->mark.hash, h->mark.class, h->mark.amount, h->max) || h->shadow;
	}
	if (!fits) {
		txn->hold_count = 0;
		txn->seen_count = 0;
	}
	for (size_t i = 0; i < txn->hold_count; i++) {
		struct table_mark *mark = &txn->holds[i].mark;
		session_charge(s, mark->hash, mark->class, mark->amount, mark);
	}
	txn_touch(&s->txns, txn, TXN_OPEN, s->now_ms);
}

/* Says that what CLIENT spoke of before may be given back soon. */
static void client_prefetch(const struct session *s, const struct session_client *client)
{
	const struct txn *txn = client->digest != 0 ? txn_find(&s->txns, client->digest) : NULL;
	if (txn == NULL || txn->state != TXN_OPEN)
		return;
	for (size_t i = 0; i < txn->hold_count && i < PREFETCH_MAX; i++)
		table_prefetch(s->table, txn->holds[i].mark.hash);
}

/* The connection speaks of DIGEST now: what it spoke of before has ended. */
static void client_moves_on(struct session *s, struct session_client *client, uint64_t digest)
{
	struct txn *old = client->digest != 0 && client->digest != digest ? txn_find(&s->txns, client->digest) : NULL;
	if (old != NULL && old->owner == client) {
		if (old->state == TXN_ENDED)
			old->owner = NULL;
		else
			txn_abandon(s, old);
	}
	client->digest = digest;
}

void session_client_done(struct session *s, struct session_client *client, int64_t now_ms)
{
	struct txn *txn = client->digest != 0 ? txn_find(&s->txns, client->digest) : NULL;
	s->now_ms = now_ms > s->now_ms ? now_ms : s->now_ms;
	client->digest = 0;
	if (txn == NULL || txn->owner != client)
		return;
	txn->owner = NULL;
	if (txn->state != TXN_OPEN)
		return;
	txn_give_up(s, txn);
	txn_touch(&s->txns, txn, TXN_DETACHED, s->now_ms);
}

void session_tick(struct session *s, int64_t now_ms)
{
	struct txn *txn;
	s->now_ms = now_ms > s->now_ms ? now_ms : s->now_ms;
	while ((txn = txn_list_oldest(&s->txns, &s->txns.live)) != NULL && s->now_ms - txn->touched_ms >= s->timeout_ms)
		txn_abandon(s, txn);
	while ((txn = txn_list_oldest(&s->txns, &s->txns.ended)) != NULL &&
	       s->now_ms - txn->touched_ms >= SESSION_ENDED_KEEP_MS)
		txn_drop(&s->txns, txn);
}

void session_restore_ended(struct session *s, uint64_t digest, int64_t now_ms)
{
	s->now_ms = now_ms > s->now_ms ? now_ms : s->now_ms;
	struct txn *txn = txn_find(&s->txns, digest);
	if (txn == NULL)
		txn = txn_begin(s, digest);
	txn->charged = true;
	txn_end(s, txn);
}

/* ---- what a request would be charged ---- */

/* The next item, to be filled in; NULL, and said so, where there are too many. */
static struct session_item *item_add(struct session *s)
{
	if (s->item_count < SESSION_ITEMS_MAX)
		return &s->items[s->item_count++];
	s->full = true;
	return NULL;
}

static uint64_t number_attr(const struct stage *stage, enum proto_attr attr)
{
	uint64_t value = 0;
	struct span text = stage->request->attr[attr];
	for (size_t i = 0; i < text.len && ascii_isdigit(text.ptr[i]) && value < WINDOW_NARROW_MAX * 1000; i++)
		value = value * 10 + (uint64_t)(text.ptr[i] - '0');
	return value;
}

/* At the end of a message both are final. */
static uint64_t bytes_of(const struct stage *stage)
{
	return number_attr(stage, PROTO_SIZE);
}

static uint64_t recipients_of(const struct stage *stage)
{
	uint64_t count = number_attr(stage, PROTO_RECIPIENT_COUNT);
	return count > 0 ? count : 1;
}

/* What RULE takes of this request if nothing was reserved, and of a further
 * recipient of the same message. */
static uint64_t rule_amount(const struct rule *rule, const struct stage *stage, bool further)
{
	switch (rule->unit) {
	case UNIT_MESSAGES:
		return further ? 0 : 1;
	case UNIT_BYTES:
		return further ? 0 : bytes_of(stage);
	default:
		if (stage->is_end)
			return rule_scope_is_recipient(rule->scope) ? 1 : recipients_of(stage);
		return stage->has_recipient ? 1 : 0;
	}
}

static void rule_items_add(struct session *s, const struct stage *stage, uint16_t at)
{
	const struct rule *rule = &s->rules->items[at];
	uint64_t key;
	/* At the end of a message to several, held_recipients_add() knows; before, at MAIL and DATA,
	 * nothing can be said of whom Postfix does not name: an empty recipient is not another one. */
	if (rule->by_recipient && !stage->has_recipient)
		return;
	if (!rule_applies(rule, stage->request) || key_hash(s, rule, &s->subject, &key) < 0)
		return;
	for (uint16_t j = 0; j < rule->window_count; j++) {
		const struct rule_window *w = &rule->windows[j];
		const struct override_limit limit = overrides_limit(s->overrides, rule, w, &s->subject);
		if (rule->extra && !limit.overridden)
			continue;
		const uint64_t hash = table_hash(key, w->id);
		table_prefetch(s->table, hash); /* it comes while the other keys are made */
		bool further = !stage->is_end && stage->txn->hold_count > 0 && txn_hold_find(stage->txn, hash) != NULL;
		const uint64_t amount = rule_amount(rule, stage, further);
		/* A size that was not named yet: held as nothing, for whose it will be. */
		bool unsized = stage->is_rcpt && rule->by_recipient && rule->unit == UNIT_BYTES;
		struct session_item *item;
		if ((amount == 0 && (further || !unsized)) || (item = item_add(s)) == NULL)
			continue;
		*item = (struct session_item){.hash = hash, .amount = amount, .rule = at, .window = j,
					      .max = limit.max, .action = limit.action, .shadow = limit.shadow,
					      .by_recipient = rule->by_recipient};
	}
}

/* At the end of a message whose recipients Postfix does not name any more:
 * those that were reserved. */
static void held_recipients_add(struct session *s, const struct stage *stage)
{
	for (size_t i = 0; i < stage->txn->hold_count; i++) {
		const struct txn_hold *h = &stage->txn->holds[i];
		struct session_item *item;
		if (!h->by_recipient || (item = item_add(s)) == NULL)
			continue;
		*item = (struct session_item){.hash = h->mark.hash, .amount = h->mark.amount, .rule = h->rule,
					      .window = h->window, .max = h->max, .action = h->action,
					      .shadow = h->shadow, .by_recipient = true};
		if (s->rules->items[h->rule].unit == UNIT_BYTES)
			item->amount = bytes_of(stage);
	}
}

void session_items_collect(struct session *s, const struct stage *stage)
{
	s->item_count = 0;
	s->full = false;
	for (size_t i = 0; i < s->rules->count; i++)
		rule_items_add(s, stage, (uint16_t)i);
	if (stage->is_end && !stage->has_recipient)
		held_recipients_add(s, stage);
}

/* ---- the verdict ---- */

/* Puts the refusal of HASH on record and says whether it should be logged. */
static bool limited_note(struct session *s, uint64_t hash, const struct session_refusal *r)
{
	struct session_limited *l = &s->limited[hash % SESSION_LIMITED_MAX];
	if (l->hash != hash)
		*l = (struct session_limited){.hash = hash, .first_ms = s->now_ms, .logged_ms = INT64_MIN / 2};
	bool fresh = s->now_ms - l->logged_ms >= SESSION_LOG_EVERY_MS;
	if (fresh)
		l->logged_ms = s->now_ms;
	l->last = *r;
	l->last_ms = s->now_ms;
	l->times++;
	return fresh;
}

/* What is told about a refusal by the counter HASH; 0: by a block. */
static void refusal_fill(struct session *s, const struct txn_refusal *from, bool shadow, struct session_refusal *r)
{
	const struct rule *rule = &s->rules->items[from->rule];
	*r = (struct session_refusal){.rule = rule, .scope = rule->scope, .max = from->max, .shadow = shadow,
				      .length_ms = rule->windows[from->window].length_ms,
				      .action = from->action, .until_ms = from->until_ms};
	subject_text(&s->subject, rule, r->key, sizeof(r->key));
}

static void refusal_fill_block(struct session *s, enum rule_scope scope, struct session_refusal *r)
{
	const struct rule plain = {.scope = scope, .ipv4_prefix = 32, .ipv6_prefix = 128};
	*r = (struct session_refusal){.scope = scope, .action = PROTO_DEFER, .until_ms = INT64_MAX};
	subject_text(&s->subject, &plain, r->key, sizeof(r->key));
}

static struct txn_refusal refusal_of(struct session *s, const struct session_item *item)
{
	const struct rule_window *w = session_item_window(s, item);
	struct txn_refusal r = {.hash = item->hash, .max = item->max, .amount = item->amount, .rule = item->rule,
				.window = item->window, .action = item->action, .until_ms = INT64_MAX};
	r.until_ms = session_free_at(s, item->hash, w->class, item->amount, item->max);
	return r;
}

static void refusal_report(struct session *s, const struct session_item *item, struct session_outcome *o)
{
	table_protect(s->table, item->hash);
	if (o->refusal_count == SESSION_REFUSALS_MAX)
		return;
	struct session_refusal *r = &o->refusals[o->refusal_count++];
	struct txn_refusal from = refusal_of(s, item);
	refusal_fill(s, &from, item->shadow, r);
	r->fresh = limited_note(s, item->hash, r);
}

/* REJECT outranks DEFER outranks HOLD; among equals the first in the file. */
static int severity(enum proto_action action)
{
	return action == PROTO_REJECT ? 3 : action == PROTO_DEFER ? 2 : action == PROTO_HOLD ? 1 : 0;
}

/* Marks what is over its limit; returns the item that decides, or NULL. */
static const struct session_item *items_check(struct session *s, struct session_outcome *o)
{
	const struct session_item *worst = NULL;
	for (size_t i = 0; i < s->item_count; i++) {
		struct session_item *item = &s->items[i];
		item->over = !session_fits(s, item->hash, session_item_window(s, item)->class, item->amount, item->max);
		if (!item->over)
			continue;
		refusal_report(s, item, o);
		if (!item->shadow && (worst == NULL || severity(item->action) > severity(worst->action)))
			worst = item;
	}
	return worst;
}

/* All that a transaction holds of a counter is one charge, made when it last grew. */
static void item_reserve(struct session *s, struct txn *txn, const struct session_item *item, bool had_holds)
{
	struct txn_hold *held = had_holds ? txn_hold_find(txn, item->hash) : NULL;
	if (held != NULL) {
		session_grow(s, &held->mark, item->amount);
		return;
	}
	struct txn_hold *hold = txn_hold_add(txn);
	if (hold == NULL)
		PANIC("room for holds was checked before");
	session_charge(s, item->hash, session_item_window(s, item)->class, item->amount, &hold->mark);
	hold->max = item->max;
	hold->rule = item->rule;
	hold->window = item->window;
	hold->action = item->action;
	hold->shadow = item->shadow;
	hold->by_recipient = item->by_recipient;
}

static void items_reserve(struct session *s, struct txn *txn)
{
	/* The counters of one request are all different: those added here are not looked for. */
	const bool had_holds = txn->hold_count > 0;
	for (size_t i = 0; i < s->item_count; i++)
		if (!s->items[i].over)
			item_reserve(s, txn, &s->items[i], had_holds);
}

static void items_commit(struct session *s, struct session_outcome *o)
{
	size_t count = 0;
	for (size_t i = 0; i < s->item_count; i++) {
		const struct session_item *item = &s->items[i];
		if (item->over)
			continue;
		session_charge(s, item->hash, session_item_window(s, item)->class, item->amount, &s->marks[count]);
		count += s->marks[count].amount > 0;
	}
	o->charges = s->marks;
	o->charge_count = count;
	o->committed = true;
}

/*
 * Most messages end as they were reserved, at about the same time: to take all back and to charge
 * the same again would change nothing.  Commits TXN where that is so and everything fits.
 */
static bool holds_commit(struct session *s, struct txn *txn, struct session_outcome *o)
{
	if (s->leases != NULL || s->full || txn->state != TXN_OPEN || txn->hold_count != s->item_count)
		return false;
	for (size_t i = 0; i < s->item_count; i++) {
		const struct session_item *item = &s->items[i];
		const struct table_mark *mark = &txn->holds[i].mark;
		if (mark->hash != item->hash || mark->amount != item->amount ||
		    !table_mark_stands(s->table, mark, s->now_ms, item->max))
			return false;
		s->marks[i] = *mark;
	}
	s->stats.refunds += txn->hold_count > 0;
	o->charges = s->marks;
	o->charge_count = s->item_count;
	o->committed = true;
	return true;
}

/* The request's own limits; returns the verdict. */
static enum proto_action txn_judge(struct session *s, struct txn *txn, const struct stage *stage,
				   struct session_outcome *o)
{
	session_items_collect(s, stage);
	if (stage->is_end && holds_commit(s, txn, o))
		return PROTO_DUNNO;
	if (stage->is_end)
		holds_refund(s, txn);
	const struct session_item *worst = items_check(s, o);
	if (worst == NULL && !stage->is_end && (s->full || txn->hold_count + s->item_count > TXN_HOLDS_MAX)) {
		/* More recipients than can be tracked: the client sends the rest later. */
		txn->refusal = (struct txn_refusal){.action = PROTO_DEFER, .until_ms = INT64_MAX,
						    .hash = TXN_REFUSAL_OTHER};
		return PROTO_DEFER;
	}
	if (worst != NULL) {
		txn->refusal = refusal_of(s, worst);
		return worst->action;
	}
	if (stage->is_end)
		items_commit(s, o);
	else
		items_reserve(s, txn);
	return PROTO_DUNNO;
}

/* True, with the refusal in O, where the administrator has blocked the subject. */
static bool is_blocked(struct session *s, struct session_outcome *o)
{
	uint32_t value;
	for (int scope = 0; s->blocks.map.scopes >> scope != 0; scope++) {
		if (keymap_find(&s->blocks.map, (enum rule_scope)scope, &s->subject, &value) < 0)
			continue;
		struct session_refusal *r = &o->refusals[o->refusal_count++];
		refusal_fill_block(s, (enum rule_scope)scope, r);
		r->fresh = limited_note(s, hash_siphash(&s->table->key, span_str(r->key)) | 1, r);
		return true;
	}
	return false;
}

static uint64_t message_digest(const struct session *s, struct span instance, struct span client)
{
	char *mem = s->digest_mem;
	instance = span_take(instance, PROTO_LINE_MAX);
	client = span_take(client, PROTO_LINE_MAX);
	memcpy(mem, instance.ptr, instance.len);
	mem[instance.len] = '\n';
	if (client.len > 0)
		memcpy(mem + instance.len + 1, client.ptr, client.len);
	uint64_t digest = hash_siphash(&s->table->key, span_of(mem, instance.len + 1 + client.len));
	return digest != 0 ? digest : 1;
}

bool session_stage_init(const struct session *s, const struct proto_request *request, struct stage *stage)
{
	struct span state = request->attr[PROTO_STATE], recipient = request->attr[PROTO_RECIPIENT];
	stage->request = request;
	stage->txn = NULL;
	stage->is_rcpt = span_eq(state, SPAN_LIT("RCPT"));
	stage->is_end = span_eq(state, SPAN_LIT("END-OF-MESSAGE"));
	if (request->attr[PROTO_INSTANCE].len == 0 ||
	    !(stage->is_rcpt || stage->is_end || span_eq(state, SPAN_LIT("MAIL")) || span_eq(state, SPAN_LIT("DATA"))))
		return false;
	stage->message = message_digest(s, request->attr[PROTO_INSTANCE], request->attr[PROTO_CLIENT_ADDRESS]);
	/* These states differ in their first letter. */
	stage->asked = table_hash(hash_siphash(&s->table->key, recipient), (unsigned char)state.ptr[0]);
	stage->has_recipient = (stage->is_rcpt || stage->is_end) && recipient.len > 0;
	return true;
}

/* The transaction of the request ASKED, made, picked up again or begun anew. */
static struct txn *txn_for(struct session *s, struct session_client *client, const struct stage *stage,
			   struct session_outcome *o)
{
	struct txn *txn = txn_find(&s->txns, stage->message);
	if (txn != NULL && txn->state == TXN_ENDED && !stage->is_end && txn_seen_find(txn, stage->asked) == NULL) {
		txn_drop(&s->txns, txn); /* an instance that is used again */
		txn = NULL;
	}
	o->first_of_message = txn == NULL;
	if (txn == NULL)
		txn = txn_begin(s, stage->message);
	else if (txn->state == TXN_DETACHED)
		txn_reattach(s, txn);
	txn->joined = txn->owner != NULL;
	txn->owner = client;
	return txn;
}

/* What the request tells about who asks: AGAIN where an equal one came before. */
static void wiring_note(struct session *s, struct txn *txn, const struct stage *stage, bool first, bool again)
{
	if (first)
		wiring_message(&s->wiring, stage->is_end);
	txn->at_rcpt |= stage->is_rcpt;
	txn->elsewhere |= !stage->is_rcpt && !stage->is_end;
	if (txn->repeated || !((again && txn->joined) || (txn->at_rcpt && txn->elsewhere)))
		return;
	txn->repeated = true;
	wiring_repeat(&s->wiring);
}

static enum proto_action verdict_of(struct session *s, struct session_client *client, struct stage *stage,
				    struct session_outcome *o)
{
	struct txn *txn = txn_for(s, client, stage, o);
	stage->txn = txn;
	o->digest = stage->message;
	const struct txn_seen *seen = txn_seen_find(txn, stage->asked);
	wiring_note(s, txn, stage, o->first_of_message, seen != NULL);
	if (seen != NULL || txn->state == TXN_ENDED) {
		o->repeated = true;
		return seen != NULL ? seen->action : PROTO_DUNNO;
	}
	txn_touch(&s->txns, txn, TXN_OPEN, s->now_ms);
	enum proto_action action = txn_judge(s, txn, stage, o);
	txn_seen_add(txn, stage->asked, action);
	txn->charged = o->committed;
	if (stage->is_end)
		txn_end(s, txn);
	return action;
}

/* The reply to a refusal, from what the transaction remembers of it. */
static void refusal_reply(struct session *s, uint64_t digest, enum proto_action action, int64_t wall_ms,
			  struct sbuf *out)
{
	const struct txn *txn = txn_find(&s->txns, digest);
	struct session_refusal r = {.action = action, .until_ms = INT64_MAX};
	if (txn != NULL && txn->refusal.hash != TXN_REFUSAL_OTHER)
		refusal_fill(s, &txn->refusal, false, &r);
	r.action = action;
	verdict_reply_add(&r, s->now_ms, wall_ms, out);
}

uint64_t session_moves_on(struct session *s, struct session_client *client, const struct proto_request *request,
			  int64_t now_ms)
{
	struct stage stage;
	if (!session_stage_init(s, request, &stage))
		return 0;
	s->now_ms = now_ms > s->now_ms ? now_ms : s->now_ms;
	client_moves_on(s, client, stage.message);
	return client->digest;
}

void session_request(struct session *s, struct session_client *client, const struct proto_request *request,
		     int64_t now_ms, int64_t wall_ms, struct sbuf *out, struct session_outcome *outcome_out)
{
	struct session_outcome *o = outcome_out;
	struct stage stage;
	o->action = PROTO_DUNNO;
	o->repeated = o->committed = o->first_of_message = o->end_of_message = false;
	o->charge_count = o->refusal_count = 0;
	o->digest = 0;
	s->now_ms = now_ms > s->now_ms ? now_ms : s->now_ms;
	client_prefetch(s, client);
	if (session_stage_init(s, request, &stage)) {
		txn_prefetch(&s->txns, stage.message);
		o->end_of_message = stage.is_end;
		client_moves_on(s, client, stage.message);
		wiring_request(&s->wiring, stage.is_end, s->now_ms);
		subject_init(&s->subject, request, s->rules->scopes | s->blocks.map.scopes, s->rules->delimiter);
		if (is_blocked(s, o)) {
			o->action = PROTO_DEFER;
			verdict_reply_add(&o->refusals[0], s->now_ms, wall_ms, out);
			return;
		}
		if (!subject_is_allowed(&s->subject, s->rules))
			o->action = verdict_of(s, client, &stage, o);
	} else {
		wiring_stranger(&s->wiring);
	}
	if (o->action != PROTO_DUNNO)
		refusal_reply(s, o->digest, o->action, wall_ms, out);
	else if (proto_reply_add(PROTO_DUNNO, SPAN_EMPTY, out) < 0)
		PANIC("no room for a reply");
}
