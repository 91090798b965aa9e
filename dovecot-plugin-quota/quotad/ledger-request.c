/*
 * What each request does to the ledger.  A reservation or intent is a `hold`
 * in the list of its connection; every hold is counted in its user's `open`
 * and ends in exactly one place, hold_end().
 */
#include "dovecot-plugin-quota/quotad/ledger.h"

struct hold_key {
	struct hold_key *next;
	size_t len;
	char text[];
};

struct ledger_hold {
	struct ledger_hold *next;
	struct ledger_user *user;
	uint64_t id;	       /* 0: an intent */
	uint64_t bytes, messages; /* reserved */
	struct hold_key *keys; /* credits taken, to be given back on release */
};

static struct ledger_hold **hold_find(struct ledger_owner *owner, const struct ledger_user *user,
				      uint64_t id)
{
	struct ledger_hold **h = &owner->holds;
	while (*h != NULL && !((*h)->id == id && (*h)->user == user))
		h = &(*h)->next;
	return *h != NULL ? h : NULL;
}

static struct ledger_hold *hold_add(struct ledger *l, struct ledger_owner *owner,
				    struct ledger_user *user, uint64_t id)
{
	if (owner->count >= l->caps.per_owner)
		return NULL;
	struct ledger_hold *h = mem_zalloc(sizeof(*h));
	h->user = user;
	h->id = id;
	h->next = owner->holds;
	owner->holds = h;
	owner->count++;
	user->open++;
	l->open++;
	return h;
}

/* KEEP: the sources of its MOVEs stay remembered. */
static void hold_end(struct ledger *l, struct ledger_owner *owner, struct ledger_hold **at,
		     bool keep)
{
	struct ledger_hold *h = *at;

	*at = h->next;
	owner->count--;
	h->user->open--;
	l->open--;
	ledger_unreserve(h->user, h->bytes, h->messages);
	while (h->keys != NULL) {
		struct hold_key *key = h->keys;
		h->keys = key->next;
		if (!keep)
			once_del(&l->credits, span_of(key->text, key->len));
		free(key);
	}
	free(h);
}

void ledger_owner_gone(struct ledger *l, struct ledger_owner *owner)
{
	while (owner->holds != NULL) {
		struct ledger_user *user = owner->holds->user;
		ledger_suspect(l, user);
		user->seq++;
		hold_end(l, owner, &owner->holds, false);
	}
}

bool ledger_owner_has(const struct ledger_owner *owner, const struct ledger_user *user)
{
	const struct ledger_hold *h = owner->holds;
	while (h != NULL && h->user != user)
		h = h->next;
	return h != NULL;
}

static bool others_are_busy(const struct ledger_owner *owner, const struct ledger_user *user)
{
	size_t own = 0;
	for (const struct ledger_hold *h = owner->holds; h != NULL; h = h->next)
		own += h->user == user;
	return user->open > own;
}

static uint64_t room_of(uint64_t limit, uint64_t used, uint64_t reserved)
{
	if (limit == 0)
		return QUOTA_UNLIMITED;
	return used + reserved >= limit ? 0 : limit - used - reserved;
}

/* The domain whose limits bind the user, or NULL. */
static const struct ledger_domain *binding(const struct ledger_user *u)
{
	return u->domain != NULL && u->domain->complete ? u->domain : NULL;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t shared_room(const struct ledger_user *u)
{
	const struct ledger_domain *d = binding(u);
	return d != NULL ? room_of(d->limit, d->used, d->reserved) : QUOTA_UNLIMITED;
}

static uint64_t shared_message_room(const struct ledger_user *u)
{
	const struct ledger_domain *d = binding(u);
	return d != NULL ? room_of(d->message_limit, d->messages, d->reserved_messages)
			 : QUOTA_UNLIMITED;
}

static uint64_t room(const struct ledger_user *u)
{
	return smaller(room_of(u->limit, u->used, u->reserved), shared_room(u));
}

static uint64_t message_room(const struct ledger_user *u)
{
	return smaller(room_of(u->message_limit, u->messages, u->reserved_messages),
		       shared_message_room(u));
}

/* The user's limit for one mailbox; what takes a limit away leaves no room. */
static uint64_t box_room(uint64_t limit, uint64_t extra, bool less, uint64_t used,
			 uint64_t reserved)
{
	if (limit == 0)
		return QUOTA_UNLIMITED;
	if (less && extra >= limit)
		return 0;
	return room_of(less ? limit - extra : limit + extra, used, reserved);
}

/* Whether the user's limit for the mailbox leaves room for BYTES beside what is USED and RESERVED. */
static bool takes(const struct ledger_user *u, const struct quota_request *r, uint64_t bytes, uint64_t used,
		  uint64_t reserved)
{
	const uint64_t own = box_room(u->limit, r->extra, (r->flags & QUOTA_EXTRA_LESS) != 0, used, reserved);

	return bytes <= own || (own > 0 && bytes - own <= r->grace);
}

static bool fits(const struct ledger_user *u, const struct quota_request *r, uint64_t bytes,
		 uint64_t messages)
{
	const uint64_t own_messages =
		box_room(u->message_limit, r->extra_messages,
			 (r->flags & QUOTA_EXTRA_MESSAGES_LESS) != 0, u->messages,
			 u->reserved_messages);

	return takes(u, r, bytes, u->used, u->reserved) && bytes <= shared_room(u) && messages <= own_messages &&
	       messages <= shared_message_room(u);
}

static enum quota_word judge(const struct ledger_user *u, const struct quota_request *r,
			     bool credited)
{
	const struct ledger_domain *d = binding(u);
	const uint64_t need = credited ? (r->bytes > r->credit ? r->bytes - r->credit : 0)
				       : r->bytes;

	if ((need == 0 && credited) || fits(u, r, need, credited ? 0 : 1))
		return QUOTA_OK;
	/* Whatever is there, so no count could change it. */
	const bool over_whole = !takes(u, r, need, 0, 0) || (d != NULL && d->limit != 0 && need > d->limit);
	return over_whole ? QUOTA_BIG : QUOTA_OVER;
}

/* What is not known whole is not written: the row may know better. */
static void journal(struct ledger_user *u, const struct ledger_time *now, uint64_t instance,
		    uint64_t op, struct ledger_result *result)
{
	u->seq++;
	if (!u->counted)
		return;
	u->version = u->version < now->wall_us ? now->wall_us : u->version + 1;
	u->changed = true;
	result->changed = u->exists || !u->limit_known;
	result->change = (struct ledger_change){u->name,     u->version, u->used,
						u->messages, instance,	 op};
}

static struct span credit_key(const struct ledger_user *u, struct span key, struct sbuf *buf)
{
	sbuf_adds(buf, u->name);
	sbuf_addc(buf, '\t');
	sbuf_add(buf, key);
	return sbuf_ok(buf) ? sbuf_span(buf) : SPAN_EMPTY;
}

static void credit_take(struct ledger *l, struct ledger_hold *h, struct span key,
			const struct ledger_time *now)
{
	if (once_add(&l->credits, key, now->boot_ms + LEDGER_CREDIT_MS) < 0)
		return;
	struct hold_key *k = mem_alloc(sizeof(*k) + key.len);
	k->len = key.len;
	memcpy(k->text, key.ptr, key.len);
	k->next = h->keys;
	h->keys = k;
}

static enum quota_word reserve(struct ledger *l, struct ledger_owner *owner, struct ledger_user *u,
			       const struct quota_request *r, const struct ledger_time *now,
			       uint64_t *id_out)
{
	char mem[QUOTA_USER_MAX + QUOTA_KEY_MAX + 2];
	struct sbuf buf;
	sbuf_init(&buf, mem, sizeof(mem));
	if (!u->limit_known && r->limit > 0)
		u->limit = r->limit;
	const bool decide = (r->flags & QUOTA_RECOUNT_DONE) != 0;

	once_expire(&l->credits, now->boot_ms);
	const struct span key = credit_key(u, r->key, &buf);
	const bool credited = r->credit > 0 && r->key.len > 0 && key.len > 0 &&
			      l->credits.count < l->credits.max && !once_has(&l->credits, key);

	if ((r->flags & QUOTA_FORCE) == 0) {
		if (!u->counted && !decide)
			return QUOTA_RECOUNT;
		const enum quota_word word = judge(u, r, credited);
		if (word != QUOTA_OK)
			return u->stale && !decide ? QUOTA_RECOUNT : word;
	}
	struct ledger_hold **at = r->id != 0 ? hold_find(owner, u, r->id) : NULL;
	if (u->reserved + r->bytes > LEDGER_USE_MAX)
		return QUOTA_TEMP;
	struct ledger_hold *h = at != NULL ? *at : hold_add(l, owner, u, ++l->last_id);
	if (h == NULL)
		return QUOTA_TEMP;
	if (credited)
		credit_take(l, h, key, now);
	h->bytes += r->bytes;
	h->messages++;
	ledger_reserve(u, r->bytes, 1);
	u->seq++;
	*id_out = h->id;
	return QUOTA_OK;
}

static void remember(struct ledger_owner *owner, const struct ledger_user *u, uint64_t op)
{
	owner->last_op = op;
	owner->last_used = u->used;
	owner->last_messages = u->messages;
}

static void commit(struct ledger *l, struct ledger_owner *owner, struct ledger_user *u,
		   const struct quota_request *r, const struct ledger_time *now,
		   struct ledger_result *result)
{
	struct ledger_hold **at = r->id != 0 ? hold_find(owner, u, r->id) : NULL;
	if (at != NULL)
		hold_end(l, owner, at, true);
	else
		ledger_suspect(l, u); /* a recount may have seen these messages before */
	if (ledger_op_seen(l, owner->instance, r->op))
		return;
	ledger_use(u, u->used + r->bytes, u->messages + r->messages);
	remember(owner, u, r->op);
	journal(u, now, owner->instance, r->op, result);
}

static bool end_intent(struct ledger *l, struct ledger_owner *owner, struct ledger_user *u)
{
	struct ledger_hold **at = hold_find(owner, u, 0);
	if (at != NULL)
		hold_end(l, owner, at, true);
	return at != NULL;
}

static void release(struct ledger *l, struct ledger_owner *owner, struct ledger_user *u,
		    uint64_t id)
{
	struct ledger_hold **at = id != 0 ? hold_find(owner, u, id) : NULL;
	if (at != NULL)
		hold_end(l, owner, at, false);
	u->seq++;
}

static uint64_t less(uint64_t from, uint64_t by)
{
	return from > by ? from - by : 0;
}

static void give_back(struct ledger *l, struct ledger_owner *owner, struct ledger_user *u,
		      const struct quota_request *r, const struct ledger_time *now,
		      struct ledger_result *result)
{
	(void)end_intent(l, owner, u);
	if (ledger_op_seen(l, owner->instance, r->op))
		return;
	if (r->bytes > u->used || r->messages > u->messages)
		ledger_suspect(l, u); /* more than there was: the numbers were wrong */
	ledger_use(u, less(u->used, r->bytes), less(u->messages, r->messages));
	remember(owner, u, r->op);
	journal(u, now, owner->instance, r->op, result);
}

/* What was intended is done, but how much it freed is for the count to say. */
static enum quota_word begin_count(struct ledger *l, struct ledger_owner *owner,
				   struct ledger_user *u)
{
	if (end_intent(l, owner, u))
		ledger_suspect(l, u);
	return others_are_busy(owner, u) ? QUOTA_RETRY : QUOTA_OK;
}

static enum quota_word recounted(const struct ledger_owner *owner, struct ledger_user *u,
				 const struct quota_request *r, const struct ledger_time *now,
				 struct ledger_result *result)
{
	if (r->seq != u->seq || others_are_busy(owner, u))
		return QUOTA_RETRY;
	if (u->examined) {
		u->examined = false;
		result->examined = true;
		return QUOTA_OK;
	}
	const bool same = u->counted && u->used == r->bytes && u->messages == r->messages;
	result->drifted = u->counted && !same;
	result->drift_used = u->used;
	result->drift_messages = u->messages;
	u->counted = true;
	u->stale = u->urgent = false;
	if (!same || u->version == 0) {
		ledger_use(u, r->bytes, r->messages);
		journal(u, now, 0, 0, result);
	}
	return QUOTA_OK;
}

/* Only what is certain is refused: a recount might find room. */
static enum quota_word check(const struct ledger_user *u, const struct quota_request *r)
{
	const bool certain = u->counted && !u->stale && u->limit_known;

	return certain ? judge(u, r, false) : QUOTA_OK;
}

static void fill_reply(const struct ledger_user *u, struct quota_reply *reply)
{
	reply->limit = u->limit;
	reply->used = u->used;
	reply->messages = u->messages;
	reply->message_limit = u->message_limit;
	reply->room = room(u);
	reply->message_room = message_room(u);
	reply->seq = u->seq;
	reply->flags = (u->stale || !u->counted ? QUOTA_IS_STALE : 0) |
		       (u->limit_known ? 0 : QUOTA_LIMIT_UNKNOWN) |
		       (u->limit_known && !u->exists ? QUOTA_NO_USER : 0);
}

void ledger_request(struct ledger *l, struct ledger_owner *owner, struct ledger_user *user,
		    const struct quota_request *request, const struct ledger_time *now,
		    struct ledger_result *result_out)
{
	struct ledger_result result = {.reply = {.word = QUOTA_OK}};

	if (user == NULL) {
		result.reply.room = result.reply.message_room = QUOTA_UNLIMITED;
		result.reply.flags = QUOTA_LIMIT_UNKNOWN;
		*result_out = result;
		return;
	}
	switch (request->verb) {
	case QUOTA_RESERVE:
		result.reply.word = reserve(l, owner, user, request, now, &result.reply.id);
		break;
	case QUOTA_COMMIT:
		commit(l, owner, user, request, now, &result);
		break;
	case QUOTA_RELEASE:
		release(l, owner, user, request->id);
		break;
	case QUOTA_FREE:
		give_back(l, owner, user, request, now, &result);
		break;
	case QUOTA_INTENT:
		user->seq++;
		if (hold_find(owner, user, 0) == NULL && hold_add(l, owner, user, 0) == NULL)
			ledger_suspect(l, user);
		break;
	case QUOTA_STALE:
		ledger_unseen(l, user);
		break;
	case QUOTA_LOGIN:
		if (user->stale || !user->counted)
			ledger_suspect(l, user);
		break;
	case QUOTA_COUNT:
		result.reply.word = begin_count(l, owner, user);
		break;
	case QUOTA_COUNTED:
		result.reply.word = recounted(owner, user, request, now, &result);
		break;
	case QUOTA_CHECK:
		result.reply.word = check(user, request);
		break;
	case QUOTA_LIMIT:
		if (user->limit != request->limit || user->message_limit != request->messages)
			result.reply.word = QUOTA_TEMP;
		break;
	case QUOTA_FOLDER:
	case QUOTA_LAST:
	case QUOTA_LOOKUP:
	case QUOTA_SYNC:
	case QUOTA_CHANNEL:
	case QUOTA_HELLO:
	case QUOTA_VERBS:
		break;
	}
	fill_reply(user, &result.reply);
	if (request->verb == QUOTA_COUNT && user->examined)
		result.reply.flags |= QUOTA_EXAMINE;
	if (request->verb == QUOTA_LAST && request->op == owner->last_op) {
		result.reply.used = owner->last_used;
		result.reply.messages = owner->last_messages;
	}
	*result_out = result;
}
