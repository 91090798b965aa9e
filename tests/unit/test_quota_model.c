/* A random run of quotad's ledger against a model that just adds. */
#include "tests/unit/quota_ledger.h"

#define M_USERS 5
#define M_OWNERS 4
#define M_STEPS 200000

struct model_user {
	uint64_t used, messages, reserved;
};
struct model_hold {
	uint64_t id, bytes, messages;
	unsigned user;
};
struct model_owner {
	struct ledger_owner owner;
	struct model_hold holds[4];
	size_t count;
};

static struct model_user mu[M_USERS];
static struct model_owner mo[M_OWNERS];
static struct ledger_user *users[M_USERS];

static uint32_t rnd(uint32_t below)
{
	static uint64_t x = 88172645463325252u;
	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return (uint32_t)(x % below);
}

static void model_reserve(struct model_owner *o, unsigned ui)
{
	struct model_hold *h = o->count > 0 && rnd(3) == 0 ? &o->holds[rnd((uint32_t)o->count)]
							   : NULL;
	if (h == NULL && o->count == caps.per_owner)
		return;
	if (h != NULL)
		ui = h->user;
	const uint64_t bytes = rnd(40000);
	const struct quota_reply r = reserve(&o->owner, users[ui], h != NULL ? h->id : 0, bytes);
	const uint64_t sum = mu[ui].used + mu[ui].reserved + bytes;
	if (r.word == QUOTA_RECOUNT) {
		ck_assert(users[ui]->stale);
		return;
	}
	ck_assert_int_eq(r.word == QUOTA_OK, users[ui]->limit == 0 || sum <= users[ui]->limit);
	if (r.word != QUOTA_OK)
		return;
	if (h == NULL) {
		h = &o->holds[o->count++];
		*h = (struct model_hold){.id = r.id, .user = ui};
	}
	h->bytes += bytes;
	h->messages++;
	mu[ui].reserved += bytes;
}

static void model_end(struct model_owner *o, bool keep)
{
	if (o->count == 0)
		return;
	struct model_hold *h = &o->holds[rnd((uint32_t)o->count)];
	if (keep) {
		mu[h->user].used += h->bytes;
		mu[h->user].messages += h->messages;
		const struct ledger_result r = commit(&o->owner, users[h->user], h->id, h->bytes,
						      h->messages);
		ck_assert(r.changed);
		ck_assert_uint_eq(r.change.used, mu[h->user].used);
	} else {
		release(&o->owner, users[h->user], h->id);
	}
	mu[h->user].reserved -= h->bytes;
	*h = o->holds[--o->count];
}

static void model_gone(struct model_owner *o)
{
	for (size_t i = 0; i < o->count; i++)
		mu[o->holds[i].user].reserved -= o->holds[i].bytes;
	o->count = 0;
	ledger_owner_gone(l, &o->owner);
}

static void model_count(struct model_owner *o, unsigned ui)
{
	const struct quota_reply r = simple(&o->owner, users[ui], QUOTA_COUNT).reply;
	if (r.word != QUOTA_OK)
		return;
	const bool disturbed = rnd(2) == 0;
	if (disturbed) {
		struct model_owner *other = &mo[(o - mo + 1) % M_OWNERS];
		const struct ledger_user *before = users[ui];
		const uint64_t seq = before->seq;
		model_reserve(other, ui);
		if (before->seq == seq)
			return;
		ck_assert_int_eq(counted(&o->owner, users[ui], r.seq, 12345, 1).reply.word,
				 QUOTA_RETRY);
		return;
	}
	const struct ledger_result res = counted(&o->owner, users[ui], r.seq, mu[ui].used,
						 mu[ui].messages);
	ck_assert_int_eq(res.reply.word, QUOTA_OK);
	ck_assert(!res.drifted);
}

START_TEST(random_run_equals_model)
{
	l = ledger_new(&caps);
	uint64_t domain_used = 0, domain_reserved = 0;
	for (unsigned i = 0; i < M_USERS; i++) {
		char name[16];
		(void)snprintf(name, sizeof(name), "m%u@d", i);
		users[i] = user_with(name, i == 0 ? 0 : i * 100000, 0);
	}
	for (unsigned i = 0; i < M_OWNERS; i++)
		mo[i].owner.instance = i + 1;
	for (int step = 0; step < M_STEPS; step++) {
		struct model_owner *o = &mo[rnd(M_OWNERS)];
		const unsigned ui = rnd(M_USERS);
		const uint32_t what = rnd(100);
		if (what < 40) {
			model_reserve(o, ui);
		} else if (what < 60) {
			model_end(o, true);
		} else if (what < 70) {
			model_end(o, false);
		} else if (what < 90) {
			const uint64_t bytes = mu[ui].used > 0 ? rnd((uint32_t)mu[ui].used) : 0;
			if (mu[ui].messages == 0)
				continue;
			(void)give_back(&o->owner, users[ui], bytes);
			mu[ui].used -= bytes;
			mu[ui].messages--;
		} else if (what < 98) {
			model_count(o, ui);
		} else {
			model_gone(o);
		}
		ck_assert_uint_eq(users[ui]->used, mu[ui].used);
		ck_assert_uint_eq(users[ui]->messages, mu[ui].messages);
		ck_assert_uint_eq(users[ui]->reserved, mu[ui].reserved);
		now.wall_us += rnd(3);
	}
	for (unsigned i = 0; i < M_OWNERS; i++)
		model_gone(&mo[i]);
	for (unsigned i = 0; i < M_USERS; i++) {
		domain_used += mu[i].used;
		domain_reserved += users[i]->reserved;
	}
	ck_assert_uint_eq(users[0]->domain->used, domain_used);
	ck_assert_uint_eq(domain_reserved, 0);
	ck_assert_uint_eq(l->open, 0);
	ledger_free(&l);
}
END_TEST

static const TTest *const *const tests[] = {
	&random_run_equals_model,
	NULL,
};

TEST_MAIN("quota_model", tests)
