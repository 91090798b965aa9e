/*
 * The unused legs, newest first: under light load the old ones age and are
 * closed by the sweep before the backend would do it.
 */
#include "lmtp-indexer/relay_internal.h"

#define SWEEP_S 5.0

struct relay_leg *relay_pool_take(struct relay *r)
{
	struct relay_leg *leg = r->idle;
	if (leg != NULL)
		relay_pool_forget(leg);
	return leg;
}

bool relay_pool_put(struct relay_leg *leg)
{
	struct relay *r = leg->relay;
	if (r->idle_count >= r->keep_max)
		return false;
	leg->pooled = true;
	leg->idle_since_ms = clock_boot_ms();
	leg->prev = NULL;
	leg->next = r->idle;
	if (r->idle != NULL)
		r->idle->prev = leg;
	r->idle = leg;
	r->idle_count++;
	return true;
}

void relay_pool_forget(struct relay_leg *leg)
{
	struct relay *r = leg->relay;
	if (!leg->pooled)
		return;
	leg->pooled = false;
	*(leg->prev != NULL ? &leg->prev->next : &r->idle) = leg->next;
	if (leg->next != NULL)
		leg->next->prev = leg->prev;
	leg->next = leg->prev = NULL;
	r->idle_count--;
}

static void close_older(struct relay *r, int64_t since_ms)
{
	for (struct relay_leg *leg = r->idle; leg != NULL;) {
		struct relay_leg *next = leg->next;
		if (leg->idle_since_ms <= since_ms)
			conn_close(leg->conn);
		leg = next;
	}
}

static void on_sweep(struct ev_loop *ev, struct ev_timer *w, int events)
{
	(void)ev;
	(void)events;
	struct relay *r = w->data;
	close_older(r, clock_boot_ms() - r->keep_idle_ms);
}

void relay_configure(struct relay *r, const struct relay_config *config)
{
	struct span rest = span_str(config->backend), word;
	free(r->backend);
	free(r->host);
	r->backend = mem_alloc(rest.len + RELAY_ADDRESSES_MAX);
	r->host = mem_strdup(config->host);
	r->address_count = 0;
	char *to = r->backend;
	while (rest.len > 0 && r->address_count < RELAY_ADDRESSES_MAX) {
		span_cut(&rest, ',', &word);
		word = span_trim(word);
		if (word.len == 0)
			continue;
		memcpy(to, word.ptr, word.len);
		to[word.len] = '\0';
		r->addresses[r->address_count++] = to;
		to += word.len + 1;
	}
	r->connect_timeout_ms = config->connect_timeout_ms;
	r->reply_timeout_ms = config->reply_timeout_ms;
	r->keep_idle_ms = config->keep_idle_ms;
	r->keep_max = config->keep_max;
	close_older(r, INT64_MAX);
}

struct relay *relay_new(struct loop *loop, const struct relay_config *config)
{
	struct relay *r = mem_zalloc(sizeof(*r));
	r->loop = loop;
	r->caps = (struct lmtp_caps){.eightbitmime = true, .enhanced = true, .pipelining = true};
	relay_configure(r, config);
	cork_list_init(&r->corks, loop);
	ev_timer_init(&r->sweep, on_sweep, SWEEP_S, SWEEP_S);
	r->sweep.data = r;
	ev_timer_start(loop_ev(loop), &r->sweep);
	return r;
}

void relay_free(struct relay **relay)
{
	struct relay *r = *relay;
	if (r == NULL)
		return;
	ev_timer_stop(loop_ev(r->loop), &r->sweep);
	close_older(r, INT64_MAX);
	cork_list_done(&r->corks);
	free(r->backend);
	free(r->host);
	free(r);
	*relay = NULL;
}

const struct lmtp_caps *relay_caps(const struct relay *r)
{
	return &r->caps;
}
