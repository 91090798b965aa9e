/*
 * A cork is on the list exactly while `waiting`.  Sending may close its
 * connection, whose owner then ends or switches this very cork, so it leaves
 * the list before it is sent.
 */
#include "cork.h"

static void send_out(struct cork *c)
{
	struct conn *conn = c->conn;
	bool finish = c->finish;
	c->finish = false;
	if (conn == NULL)
		return;
	conn_write(conn, sbuf_span(&c->out));
	sbuf_reset(&c->out);
	if (finish)
		conn_finish(conn);
}

static void on_prepare(struct ev_loop *ev, struct ev_prepare *w, int events)
{
	(void)ev;
	(void)events;
	struct cork_list *list = w->data;
	while (list->first != NULL) {
		struct cork *c = list->first;
		list->first = c->next;
		c->waiting = false;
		send_out(c);
	}
}

void cork_list_init(struct cork_list *list, struct loop *loop)
{
	list->loop = loop;
	list->first = NULL;
	ev_prepare_init(&list->prepare, on_prepare);
	list->prepare.data = list;
	ev_prepare_start(loop_ev(loop), &list->prepare);
}

void cork_list_done(struct cork_list *list)
{
	if (list->loop != NULL)
		ev_prepare_stop(loop_ev(list->loop), &list->prepare);
}

void cork_init(struct cork *c, struct cork_list *list, struct conn *conn)
{
	*c = (struct cork){.list = list, .conn = conn};
	sbuf_init_heap(&c->out, CORK_MAX);
}

static void leave_list(struct cork *c)
{
	for (struct cork **at = &c->list->first; c->waiting; at = &(*at)->next) {
		if (*at == c) {
			*at = c->next;
			c->waiting = false;
			return;
		}
	}
}

void cork_done(struct cork *c)
{
	leave_list(c);
	sbuf_done(&c->out);
}

void cork_switch(struct cork *c, struct conn *conn)
{
	leave_list(c);
	sbuf_reset(&c->out);
	c->conn = conn;
	c->finish = false;
}

static void join_list(struct cork *c)
{
	if (c->waiting)
		return;
	c->waiting = true;
	c->next = c->list->first;
	c->list->first = c;
}

void cork_write(struct cork *c, struct span bytes)
{
	if (c->conn == NULL)
		return;
	if (c->out.len + bytes.len <= CORK_MAX) {
		sbuf_add(&c->out, bytes);
		join_list(c);
		return;
	}
	leave_list(c);
	conn_write(c->conn, sbuf_span(&c->out));
	sbuf_reset(&c->out);
	conn_write(c->conn, bytes);
}

void cork_hold(struct cork *c, struct span bytes)
{
	if (c->conn != NULL && c->out.len + bytes.len <= CORK_MAX)
		sbuf_add(&c->out, bytes);
	else
		cork_write(c, bytes);
}

void cork_finish(struct cork *c)
{
	c->finish = true;
	if (c->conn != NULL)
		join_list(c);
}

size_t cork_pending(const struct cork *c)
{
	return c->out.len + (c->conn == NULL ? 0 : conn_pending(c->conn));
}
