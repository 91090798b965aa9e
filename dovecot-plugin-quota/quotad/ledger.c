/*
 * The users and domains of the ledger.  The sums of a domain are kept in the
 * only three functions that change a user's numbers.  All users hang in a list
 * by their last use; a user is dropped only where nothing about it would be
 * lost: nothing open, its last version in the database, no complete domain that
 * counts on it.
 */
#include "dovecot-plugin-quota/quotad/ledger.h"

struct ledger *ledger_new(const struct ledger_caps *caps)
{
	struct ledger *l = mem_zalloc(sizeof(*l));
	l->caps = *caps;
	htab_init(&l->users, caps->users);
	htab_init(&l->domains, caps->users);
	once_init(&l->credits, caps->credits);
	once_init(&l->ops, caps->ops);
	return l;
}

static void domain_free(void *value)
{
	struct ledger_domain *d = value;
	free(d->name);
	free(d);
}

void ledger_free(struct ledger **ledger)
{
	struct ledger *l = *ledger;
	if (l == NULL)
		return;
	if (l->open != 0)
		PANIC("a connection outlives the ledger");
	htab_done(&l->users, free);
	htab_done(&l->domains, domain_free);
	once_done(&l->credits);
	once_done(&l->ops);
	free(l);
	*ledger = NULL;
}

static void list_remove(struct ledger *l, struct ledger_user *u)
{
	*(u->older != NULL ? &u->older->newer : &l->oldest) = u->newer;
	*(u->newer != NULL ? &u->newer->older : &l->newest) = u->older;
	u->older = u->newer = NULL;
}

static void list_append(struct ledger *l, struct ledger_user *u)
{
	u->older = l->newest;
	*(l->newest != NULL ? &l->newest->newer : &l->oldest) = u;
	l->newest = u;
}

/* The lower-case form of NAME in BUF, or the empty span. */
static struct span fold(struct span name, struct sbuf *buf)
{
	sbuf_add_lower(buf, name);
	return sbuf_ok(buf) ? sbuf_span(buf) : SPAN_EMPTY;
}

struct ledger_user *ledger_peek(const struct ledger *l, struct span name)
{
	char mem[QUOTA_USER_MAX + 1];
	struct sbuf buf;
	sbuf_init(&buf, mem, sizeof(mem));
	return htab_get(&l->users, fold(name, &buf));
}

struct ledger_user *ledger_find(struct ledger *l, struct span name)
{
	struct ledger_user *u = ledger_peek(l, name);
	if (u != NULL && u != l->newest) {
		list_remove(l, u);
		list_append(l, u);
	}
	return u;
}

/* Empty for a name without one. */
static struct span domain_name(struct span user)
{
	const size_t at = span_rchr(user, '@');
	return at == SPAN_NPOS ? SPAN_EMPTY : span_skip(user, at + 1);
}

static struct ledger_domain *domain_join(struct ledger *l, struct span user)
{
	const struct span name = domain_name(user);
	if (name.len == 0)
		return NULL;
	struct ledger_domain *d = htab_get(&l->domains, name);
	if (d == NULL) {
		d = mem_zalloc(sizeof(*d));
		d->name = span_dup(name);
		if (htab_put(&l->domains, span_str(d->name), d, NULL) < 0)
			PANIC("more domains than users");
	}
	d->members++;
	return d;
}

static void domain_leave(struct ledger *l, struct ledger_domain *d)
{
	if (--d->members > 0)
		return;
	(void)htab_del(&l->domains, span_str(d->name));
	domain_free(d);
}

bool ledger_may_have_mail(const struct ledger_user *u)
{
	return u->exists || !u->limit_known;
}

static bool droppable(const struct ledger_user *u)
{
	const bool written = u->delivered >= u->version;
	return u->open == 0 && u->slot == 0 && !u->listed && (written || !ledger_may_have_mail(u)) &&
	       (u->domain == NULL || !u->domain->complete || !ledger_domain_limited(u->domain));
}

/* How many of the longest idle are looked at for one that may go. */
#define DROP_TRIES 64

static bool make_room(struct ledger *l)
{
	struct ledger_user *u = l->oldest;
	for (int i = 0; u != NULL && i < DROP_TRIES && !droppable(u); i++)
		u = u->newer;
	if (u == NULL || !droppable(u))
		return false;
	ledger_use(u, 0, 0); /* takes its part out of the domain's sum */
	(void)htab_del(&l->users, span_str(u->name));
	list_remove(l, u);
	if (u->domain != NULL) {
		u->domain->complete = false;
		domain_leave(l, u->domain);
	}
	free(u);
	return true;
}

struct ledger_user *ledger_add(struct ledger *l, struct span name)
{
	struct ledger_user *u = ledger_find(l, name);
	if (u != NULL || name.len == 0 || name.len > QUOTA_USER_MAX)
		return u;
	if (l->users.count >= l->caps.users && !make_room(l))
		return NULL;

	u = mem_zalloc(sizeof(*u) + name.len + 1);
	for (size_t i = 0; i < name.len; i++)
		u->name[i] = ascii_lower(name.ptr[i]);
	u->domain = domain_join(l, span_str(u->name));
	u->stale = true;
	if (htab_put(&l->users, span_str(u->name), u, NULL) < 0)
		PANIC("no room for a user although it was made");
	list_append(l, u);
	return u;
}

static uint64_t capped(uint64_t value)
{
	return value < LEDGER_USE_MAX ? value : LEDGER_USE_MAX;
}

void ledger_use(struct ledger_user *u, uint64_t used, uint64_t messages)
{
	used = capped(used);
	messages = capped(messages);
	if (u->domain != NULL) {
		u->domain->used += used - u->used;
		u->domain->messages += messages - u->messages;
	}
	u->used = used;
	u->messages = messages;
}

void ledger_reserve(struct ledger_user *u, uint64_t bytes, uint64_t messages)
{
	u->reserved += bytes;
	u->reserved_messages += messages;
	if (u->domain == NULL)
		return;
	u->domain->reserved += bytes;
	u->domain->reserved_messages += messages;
}

void ledger_unreserve(struct ledger_user *u, uint64_t bytes, uint64_t messages)
{
	u->reserved -= bytes;
	u->reserved_messages -= messages;
	if (u->domain == NULL)
		return;
	u->domain->reserved -= bytes;
	u->domain->reserved_messages -= messages;
}

/* The row of usage went with its account, and a new account of that name begins
 * with an empty mailbox, or with what was left there: only a recount can tell. */
static bool usage_is_gone(const struct ledger *l, const struct ledger_user *u, const struct ledger_row *row)
{
	if (row == NULL)
		return u->exists;
	if (row->has_usage || (l->scanning && u->written_in == l->scan))
		return false;
	return u->delivered > 0 && u->delivered >= u->version;
}

void ledger_load(struct ledger *l, struct ledger_user *u, const struct ledger_row *row)
{
	if (usage_is_gone(l, u, row)) {
		ledger_use(u, 0, 0);
		ledger_distrust(l, span_str(u->name));
	}
	u->scan = l->scan;
	u->limit_known = true;
	u->exists = row != NULL;
	u->limit = row != NULL ? row->limit : 0;
	u->message_limit = row != NULL ? row->message_limit : 0;
	if (row == NULL || !row->has_usage)
		return;
	if (!u->changed && row->version >= u->version) {
		ledger_use(u, row->used, row->messages);
		u->version = row->version;
		u->counted = true;
	}
	if (row->version > u->delivered)
		u->delivered = row->version;
}

void ledger_scan_begin(struct ledger *l)
{
	l->scan++;
	l->scanning = true;
}

void ledger_scan_end(struct ledger *l)
{
	for (struct ledger_user *u = l->oldest; u != NULL; u = u->newer)
		if (u->limit_known && u->scan != l->scan)
			ledger_load(l, u, NULL);
	l->scanning = false;
}

void ledger_replay(struct ledger *l, struct ledger_user *u, const struct ledger_change *change)
{
	if (change->op != 0)
		(void)ledger_op_seen(l, change->instance, change->op);
	if (change->version <= u->version)
		return;
	ledger_use(u, change->used, change->messages);
	u->version = change->version;
	u->counted = true;
}

void ledger_delivered(struct ledger *l, struct span name, uint64_t version)
{
	struct ledger_user *u = htab_get(&l->users, name);
	if (u == NULL)
		return;
	u->written_in = l->scanning ? l->scan : 0;
	if (version > u->delivered)
		u->delivered = version;
}

void ledger_distrust(struct ledger *l, struct span name)
{
	struct ledger_user *u = ledger_peek(l, name);
	if (u == NULL)
		return;
	u->counted = false;
	ledger_unseen(l, u);
}

void ledger_suspect(struct ledger *l, struct ledger_user *u)
{
	u->stale = u->urgent = true;
	if (u->listed)
		return;
	u->listed = true;
	u->next_urgent = l->urgent;
	l->urgent = u;
}

void ledger_unseen(struct ledger *l, struct ledger_user *u)
{
	ledger_suspect(l, u);
	u->seq++;
}

struct ledger_user *ledger_next_urgent(struct ledger *l)
{
	while (l->urgent != NULL) {
		struct ledger_user *u = l->urgent;
		l->urgent = u->next_urgent;
		u->next_urgent = NULL;
		u->listed = false;
		if (u->urgent)
			return u;
	}
	return NULL;
}

struct ledger_domain *ledger_domain_find(const struct ledger *l, struct span name)
{
	return htab_get(&l->domains, name);
}

struct ledger_domain *ledger_domain_of(const struct ledger *l, struct span user)
{
	char mem[QUOTA_USER_MAX + 1];
	struct sbuf buf;
	sbuf_init(&buf, mem, sizeof(mem));
	return ledger_domain_find(l, domain_name(fold(user, &buf)));
}

void ledger_domain_load(struct ledger_domain *d, uint64_t limit, uint64_t message_limit)
{
	d->limit = limit;
	d->message_limit = message_limit;
}

void ledger_domain_complete(struct ledger_domain *d)
{
	d->complete = true;
}

bool ledger_domain_limited(const struct ledger_domain *d)
{
	return d->limit > 0 || d->message_limit > 0;
}

const char *ledger_domain_to_load(const struct ledger_user *u)
{
	const struct ledger_domain *d = u->domain;
	return d != NULL && !d->complete && ledger_domain_limited(d) ? d->name : NULL;
}

bool ledger_is_known(const struct ledger_user *u)
{
	return u->limit_known && ledger_domain_to_load(u) == NULL;
}

bool ledger_op_seen(struct ledger *l, uint64_t instance, uint64_t op)
{
	const uint64_t pair[2] = {instance, op};
	const struct span key = span_of(pair, sizeof(pair));

	if (l->ops.count >= l->ops.max && !once_has(&l->ops, key))
		once_drop_oldest(&l->ops);
	return once_add(&l->ops, key, 0) == ERR_EXISTS;
}
