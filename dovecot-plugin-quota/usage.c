/*
 * STATE is always the newest that is known: quotad's last reply, or a
 * count of the mailbox while quotad is away; the limit in it outlives an outage.  A save that
 * quotad has not seen ends with a note that makes it recount the user.
 */
#include "dovecot-plugin-quota/usage.h"

#define RECOUNT_TRIES 3

static struct quota_request request_of(const struct usage *u, enum quota_verb verb)
{
	return (struct quota_request){.verb = verb, .user = span_str(u->user)};
}

static uint64_t room_of(uint64_t limit, uint64_t used)
{
	if (limit == 0)
		return QUOTA_UNLIMITED;
	return used < limit ? limit - used : 0;
}

static int call(struct usage *u, const struct quota_request *request, struct quota_reply *reply_out)
{
	struct quota_reply reply;
	const int rc = quota_client_call(u->client, request, &reply);
	if (rc < 0)
		return ERR_TEMP;
	const uint64_t last_limit = u->state.limit;
	u->state = reply;
	u->known = true;
	u->wants_recount = (reply.flags & QUOTA_IS_STALE) != 0;
	if ((reply.flags & QUOTA_LIMIT_UNKNOWN) != 0 && last_limit != 0) {
		u->state.limit = last_limit;
		u->state.room = room_of(last_limit, reply.used);
	}
	*reply_out = reply;
	return reply.word == QUOTA_TEMP ? ERR_TEMP : 0;
}

static int count(struct usage *u, uint64_t *bytes_out, uint64_t *messages_out)
{
	if (u->counting)
		return ERR_AGAIN;
	u->counting = true;
	const int rc = u->count(u->arg, bytes_out, messages_out);
	u->counting = false;
	return rc < 0 ? ERR_PERM : 0;
}

/* Fills STATE from a count of the mailbox; the limit stays. */
static void count_locally(struct usage *u)
{
	uint64_t bytes, messages;
	if (count(u, &bytes, &messages) < 0)
		return;
	u->state.used = bytes;
	u->state.messages = messages;
	u->state.room = room_of(u->state.limit, bytes);
}

static enum usage_verdict verdict(const struct usage *u, uint64_t bytes, uint64_t room)
{
	if (u->state.limit != 0 && bytes > u->state.limit)
		return USAGE_BIG;
	return bytes > room ? USAGE_OVER : USAGE_OK;
}

static enum usage_verdict reserve_locally(struct usage *u, struct usage_save *save,
					  const struct usage_mail *mail)
{
	const uint64_t need = mail->bytes > mail->credit ? mail->bytes - mail->credit : 0;

	save->unseen = true;
	if (mail->force || u->state.limit == 0 || need == 0)
		return USAGE_OK;
	count_locally(u);
	const uint64_t room = u->state.room;
	return verdict(u, need, room > save->bytes ? room - save->bytes : 0);
}

enum usage_verdict usage_reserve(struct usage *u, struct usage_save *save,
				 const struct usage_mail *mail)
{
	struct quota_request r = request_of(u, QUOTA_RESERVE);
	struct quota_reply reply;
	enum usage_verdict result;

	r.id = save->id;
	r.bytes = mail->bytes;
	r.credit = mail->credit;
	r.limit = u->state.limit;
	r.key = span_str(mail->key);
	r.flags = mail->force ? QUOTA_FORCE : 0;
	int rc = call(u, &r, &reply);
	if (rc == 0 && reply.word == QUOTA_RECOUNT) {
		(void)usage_recount(u);
		r.flags |= QUOTA_RECOUNT_DONE;
		rc = call(u, &r, &reply);
	}
	if (rc < 0)
		result = reserve_locally(u, save, mail);
	else if (reply.word == QUOTA_OVER || reply.word == QUOTA_BIG)
		result = reply.word == QUOTA_BIG ? USAGE_BIG : USAGE_OVER;
	else
		result = USAGE_OK;
	if (result != USAGE_OK) {
		save->refused = true;
		return result;
	}
	if (rc == 0)
		save->id = reply.id;
	save->bytes += mail->bytes;
	save->messages++;
	return USAGE_OK;
}

void usage_unsized(struct usage_save *save)
{
	save->unseen = true;
}

void usage_commit(struct usage *u, struct usage_save *save)
{
	struct quota_request r = request_of(u, QUOTA_COMMIT);

	r.id = save->id;
	r.bytes = save->bytes;
	r.messages = save->messages;
	if (save->messages > 0)
		save->unseen = quota_client_post(u->client, &r) < 0 || save->unseen;
	if (save->unseen)
		usage_stale(u);
	*save = (struct usage_save){0};
}

void usage_release(struct usage *u, struct usage_save *save)
{
	struct quota_request r = request_of(u, QUOTA_RELEASE);

	r.id = save->id;
	if (save->id != 0)
		quota_client_note(u->client, &r);
	*save = (struct usage_save){0};
}

void usage_intent(struct usage *u)
{
	const struct quota_request r = request_of(u, QUOTA_INTENT);
	quota_client_note(u->client, &r);
}

void usage_stale(struct usage *u)
{
	const struct quota_request r = request_of(u, QUOTA_STALE);
	quota_client_note(u->client, &r);
	u->wants_recount = true;
}

void usage_freed(struct usage *u, uint64_t bytes, uint64_t messages)
{
	struct quota_request r = request_of(u, QUOTA_FREE);

	r.bytes = bytes;
	r.messages = messages;
	if (quota_client_post(u->client, &r) < 0)
		usage_stale(u);
}

static int recount_once(struct usage *u)
{
	const struct quota_request begin = request_of(u, QUOTA_COUNT);
	struct quota_request end = request_of(u, QUOTA_COUNTED);
	struct quota_reply reply;

	int rc = call(u, &begin, &reply);
	if (rc < 0)
		return rc;
	if (reply.word == QUOTA_RETRY)
		return ERR_AGAIN;
	end.seq = reply.seq;
	rc = count(u, &end.bytes, &end.messages);
	if (rc < 0)
		return rc;
	rc = call(u, &end, &reply);
	if (rc < 0)
		return rc;
	return reply.word == QUOTA_RETRY ? ERR_AGAIN : 0;
}

int usage_recount(struct usage *u)
{
	int rc = ERR_AGAIN;
	if (u->counting)
		return ERR_AGAIN;
	for (int i = 0; i < RECOUNT_TRIES && rc == ERR_AGAIN; i++)
		rc = recount_once(u);
	return rc;
}

void usage_settle(struct usage *u)
{
	if (u->known && u->wants_recount && !u->counting)
		(void)usage_recount(u);
}

void usage_lookup(struct usage *u)
{
	const struct quota_request r = request_of(u, QUOTA_LOOKUP);
	struct quota_reply reply;

	if (u->counting)
		return;
	if (call(u, &r, &reply) < 0)
		count_locally(u);
	else
		usage_settle(u);
}

enum usage_verdict usage_check(struct usage *u, uint64_t bytes, bool precise)
{
	if (precise)
		usage_lookup(u);
	else if (!u->known)
		return USAGE_OK;
	/* Full is full even for a message whose size is not known yet. */
	return verdict(u, bytes > 0 ? bytes : 1, u->state.room);
}
