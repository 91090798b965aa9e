/*
 * A packet is a line, so nothing is ever left half read. take() may end or add what a connection has open, and
 * broken() frees that connection's channel, never another's: each loop has its next one before.
 */
#include "dovecot-plugin-quota/quotad/channel.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

static void on_timer(struct ev_loop *ev, struct ev_timer *w, int events)
{
	(void)ev;
	(void)events;
	struct channels *all = w->data;
	channels_read(all);
	if (all->lenders.first == NULL)
		ev_timer_stop(all->ev, w);
}

void channels_start(struct channels *all, struct ev_loop *ev, const struct ledger *ledger,
		    const struct channel_handler *handler, size_t max)
{
	*all = (struct channels){.handler = handler, .ledger = ledger, .ev = ev, .max = max};
	ev_timer_init(&all->timer, on_timer, 0, CHANNEL_READ_S);
	all->timer.data = all;
}

void channels_stop(struct channels *all)
{
	if (all->ev != NULL)
		ev_timer_stop(all->ev, &all->timer);
}

void channel_init(struct channel *ch, const struct ledger_owner *owner, void *arg)
{
	*ch = (struct channel){.fd = -1, .owner = owner, .arg = arg};
}

static bool is_seqpacket(int fd)
{
	int type = 0;
	socklen_t size = sizeof(type);
	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_SEQPACKET;
}

int channel_open(struct channels *all, struct channel *ch, int fd)
{
	const bool fits = ch->fd < 0 && is_seqpacket(fd);

	if (!fits || all->count >= all->max) {
		close(fd);
		return fits ? 0 : ERR_SYNTAX;
	}
	ch->fd = fd;
	all->count++;
	return 0;
}

static void end(struct channels *all, struct channel *ch)
{
	waiting_del(&ch->lends);
	if (ch->fd < 0)
		return;
	close(ch->fd);
	ch->fd = -1;
	all->count--;
}

void channel_note(struct channels *all, struct channel *ch)
{
	const bool lends = ch->fd >= 0 && ch->owner->count > 0;
	if (lends == waiting_has(&ch->lends))
		return;
	if (!lends) {
		waiting_del(&ch->lends);
		return;
	}
	waiting_add(&all->lenders, &ch->lends);
	if (!ev_is_active(&all->timer))
		ev_timer_again(all->ev, &all->timer);
}

/* Until nothing is open any more; LAST: until nothing is there. */
static int read_lines(struct channels *all, struct channel *ch, bool last)
{
	char line[QUOTA_LINE_MAX + 1];
	int rc = 0;

	for (int i = 0; i < CHANNEL_READ_MAX && ch->fd >= 0 && rc == 0 && (last || waiting_has(&ch->lends)); i++) {
		const ssize_t n = recv(ch->fd, line, sizeof(line), MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return 0;
		if (n <= 0) {
			end(all, ch); /* the connection's end says the rest */
			return 0;
		}
		const size_t len = (size_t)n;
		rc = len <= QUOTA_LINE_MAX && line[len - 1] == '\n'
			     ? all->handler->take(ch->arg, span_of(line, len - 1))
			     : ERR_SYNTAX;
	}
	if (rc < 0)
		end(all, ch); /* nobody knows what the rest would say */
	return rc;
}

int channel_read(struct channels *all, struct channel *ch)
{
	return read_lines(all, ch, false);
}

void channel_close(struct channels *all, struct channel *ch)
{
	IGNORE_RESULT(read_lines(all, ch, true)); /* who sent nonsense is gone now */
	end(all, ch);
}

static struct channel *channel_of(struct waiter *w)
{
	return (struct channel *)w;
}

static void read_of_other(struct channels *all, struct channel *ch)
{
	if (channel_read(all, ch) < 0)
		all->handler->broken(ch->arg);
}

void channels_read_user(struct channels *all, const struct channel *but, struct span name)
{
	const struct ledger_user *user = ledger_peek(all->ledger, name);

	for (struct waiter *w = all->lenders.first, *next; w != NULL; w = next) {
		next = w->next;
		struct channel *ch = channel_of(w);
		if (user == NULL || user->open == 0)
			return;
		if (ch == but || !ledger_owner_has(ch->owner, user))
			continue;
		read_of_other(all, ch);
		user = ledger_peek(all->ledger, name); /* what was read may have made the ledger drop it */
	}
}

void channels_read(struct channels *all)
{
	for (struct waiter *w = all->lenders.first, *next; w != NULL; w = next) {
		next = w->next;
		read_of_other(all, channel_of(w));
	}
}
