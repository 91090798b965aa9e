/*
 * STATE is always the newest that is known: quotad's last reply, or a
 * count of the mailbox while quotad is away; the limit in it outlives an outage.  A save that
 * quotad has not seen ends with a note, or a marker, that makes it recount the user.
 */
#include "dovecot-plugin-quota/usage.h"

#include <poll.h>

#define RECOUNT_TRIES 3
#define RECOUNT_STEP_MS 5

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

/* Sets what is left by the limits of the user, who uses this much. */
static void set_room(struct quota_reply *state)
{
	state->room = room_of(state->limit, state->used);
	state->message_room = room_of(state->message_limit, state->messages);
}

static int call(struct usage *u, const struct quota_request *request, struct quota_reply *reply_out)
{
	struct quota_reply reply;
	const int rc = quota_client_call(u->client, request, &reply);
	if (rc < 0)
		return ERR_TEMP;
	const struct quota_reply last = u->state;
	u->state = reply;
	u->known = true;
	u->wants_recount = (reply.flags & QUOTA_IS_STALE) != 0;
	if ((reply.flags & QUOTA_LIMIT_UNKNOWN) != 0) {
		u->state.limit = last.limit;
		u->state.message_limit = last.message_limit;
		set_room(&u->state);
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
	return rc;
}

/* Fills STATE from a count of the mailbox; the limit stays. */
static int count_locally(struct usage *u)
{
	uint64_t bytes, messages;
	const int rc = count(u, &bytes, &messages);
	if (rc < 0)
		return rc;
	u->state.used = bytes;
	u->state.messages = messages;
	set_room(&u->state);
	return 0;
}

static uint64_t adjusted(uint64_t room, int64_t by)
{
	if (room == QUOTA_UNLIMITED || by >= 0)
		return room + (room == QUOTA_UNLIMITED ? 0 : (uint64_t)by);
	return room > (uint64_t)-by ? room - (uint64_t)-by : 0;
}

/* Whether ROOM takes a message, which may have GRACE bytes more where there is some. */
static bool takes(uint64_t room, uint64_t bytes, uint64_t grace)
{
	return bytes <= room || (room > 0 && bytes - room <= grace);
}

/* Whether a message of BYTES fits beside what SAVE, if any, has not told yet. */
static enum usage_verdict verdict(const struct usage *u, uint64_t bytes,
				  const struct usage_allowance *a, const struct usage_save *save)
{
	const uint64_t saved = save != NULL ? save->bytes : 0;
	const uint64_t saved_messages = save != NULL ? save->messages : 0;
	const uint64_t most = adjusted(u->state.room, a->bytes);
	const uint64_t most_messages = adjusted(u->state.message_room, a->messages);
	const uint64_t room = most > saved ? most - saved : 0;
	const uint64_t whole = adjusted(room_of(u->state.limit, 0), a->bytes);

	if (takes(room, bytes, a->grace) && saved_messages < most_messages)
		return USAGE_OK;
	return takes(whole, bytes, a->grace) ? USAGE_OVER : USAGE_BIG;
}

static enum usage_verdict reserve_locally(struct usage *u, struct usage_save *save,
					  const struct usage_mail *mail)
{
	const uint64_t need = mail->bytes > mail->credit ? mail->bytes - mail->credit : 0;

	save->unseen = true;
	if (mail->force || need == 0 || (u->state.limit == 0 && u->state.message_limit == 0))
		return USAGE_OK;
	const int rc = count_locally(u);
	if (rc < 0 && !u->known)
		return USAGE_OK;
	const enum usage_verdict result = verdict(u, need, &mail->allowance, save);
	return rc == ERR_TEMP && result == USAGE_OVER ? USAGE_DOUBT : result;
}

static uint64_t magnitude(int64_t n)
{
	const uint64_t m = n < 0 ? (uint64_t)-n : (uint64_t)n;
	return m < QUOTA_SIZE_MAX ? m : QUOTA_SIZE_MAX;
}

static struct quota_request reserve_request(const struct usage *u, const struct usage_save *save,
					    const struct usage_mail *mail)
{
	const struct usage_allowance *a = &mail->allowance;
	struct quota_request r = request_of(u, QUOTA_RESERVE);

	r.id = save->id;
	r.bytes = mail->bytes;
	r.credit = mail->credit;
	r.limit = u->state.limit;
	r.key = span_str(mail->key);
	r.extra = magnitude(a->bytes);
	r.extra_messages = magnitude(a->messages);
	r.grace = a->grace < QUOTA_SIZE_MAX ? a->grace : QUOTA_SIZE_MAX;
	r.flags = (mail->force ? QUOTA_FORCE : 0) | (a->bytes < 0 ? QUOTA_EXTRA_LESS : 0) |
		  (a->messages < 0 ? QUOTA_EXTRA_MESSAGES_LESS : 0);
	return r;
}

/*
 * Until the usage is certain: others may be at the mailbox, or a count was one that only looks. False where
 * no count will ever make it so.
 */
static bool recount_patiently(struct usage *u, struct usage_save *save)
{
	const int64_t deadline_ms = quota_client_now_ms() + (save->waited ? 0 : u->client->patience_ms);
	int rc = usage_recount(u);

	save->waited = true;
	while ((rc == ERR_AGAIN || (rc == 0 && u->wants_recount)) && quota_client_now_ms() < deadline_ms) {
		(void)poll(NULL, 0, RECOUNT_STEP_MS);
		rc = usage_recount(u);
	}
	return rc != ERR_PERM;
}

static enum usage_verdict verdict_of(enum quota_word word, bool certain)
{
	switch (word) {
	case QUOTA_OVER:
		return certain ? USAGE_OVER : USAGE_DOUBT;
	case QUOTA_BIG: /* by its limit alone */
		return USAGE_BIG;
	default:
		return USAGE_OK;
	}
}

/* That of a grant which a COMMIT that comes later does not leave in doubt any longer than it is. */
static uint64_t link_of(const struct usage *u, const struct quota_reply *reply)
{
	return (reply->flags & (QUOTA_IS_STALE | QUOTA_LIMIT_UNKNOWN)) == 0 ? u->client->link : 0;
}

enum usage_verdict usage_reserve(struct usage *u, struct usage_save *save,
				 const struct usage_mail *mail)
{
	struct quota_request r = reserve_request(u, save, mail);
	struct quota_reply reply;
	bool hopeful = true;

	int rc = call(u, &r, &reply);
	if (rc == 0 && reply.word == QUOTA_RECOUNT) {
		hopeful = recount_patiently(u, save);
		r.flags |= QUOTA_RECOUNT_DONE;
		rc = call(u, &r, &reply);
	}
	const enum usage_verdict result =
		rc < 0 ? reserve_locally(u, save, mail)
		       : verdict_of(reply.word, !hopeful || !u->wants_recount);
	if (result != USAGE_OK) {
		save->refusal = result;
		return result;
	}
	const uint64_t link = rc == 0 ? link_of(u, &reply) : 0;
	save->link = save->messages == 0 || save->link == link ? link : 0;
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
		save->unseen = quota_client_post(u->client, &r, save->link) < 0 || save->unseen;
	if (save->unseen)
		usage_stale(u);
	*save = (struct usage_save){0};
}

void usage_release(struct usage *u, struct usage_save *save)
{
	struct quota_request r = request_of(u, QUOTA_RELEASE);

	r.id = save->id;
	if (save->id != 0)
		IGNORE_RESULT(quota_client_note(u->client, &r));
	*save = (struct usage_save){0};
}

void usage_intent(struct usage *u)
{
	const struct quota_request r = request_of(u, QUOTA_INTENT);
	IGNORE_RESULT(quota_client_note(u->client, &r));
}

void usage_stale(struct usage *u)
{
	IGNORE_RESULT(quota_client_doubt(u->client, span_str(u->user)));
	u->wants_recount = true;
}

void usage_login(const struct usage *u)
{
	const struct quota_request r = request_of(u, QUOTA_LOGIN);
	IGNORE_RESULT(quota_client_note(u->client, &r));
}

void usage_freed(struct usage *u, uint64_t bytes, uint64_t messages)
{
	struct quota_request r = request_of(u, QUOTA_FREE);

	r.bytes = bytes;
	r.messages = messages;
	if (quota_client_post(u->client, &r, 0) < 0)
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
	u->examining = (reply.flags & QUOTA_EXAMINE) != 0;
	rc = count(u, &end.bytes, &end.messages);
	u->examining = false;
	if (rc < 0)
		return rc;
	rc = call(u, &end, &reply);
	if (rc < 0)
		return rc;
	return reply.word == QUOTA_RETRY ? ERR_AGAIN : 0;
}

void usage_folder_differs(struct usage *u, const struct usage_folder *folder)
{
	struct quota_request r = request_of(u, QUOTA_FOLDER);
	char name[QUOTA_KEY_MAX];
	const struct span whole = span_str(folder->name);
	struct span cut = span_take(whole, sizeof(name));

	for (size_t i = 0; i < cut.len; i++)
		name[i] = (unsigned char)cut.ptr[i] < ' ' || cut.ptr[i] == '\x7f' ? '?' : cut.ptr[i];
	/* Not within a character of several bytes. */
	while (cut.len < whole.len && cut.len > 0 && ((unsigned char)whole.ptr[cut.len] & 0xc0) == 0x80)
		cut.len--;
	r.key = span_of(name, cut.len);
	r.bytes = folder->indexed_bytes;
	r.messages = folder->indexed_messages;
	r.extra = folder->found_bytes;
	r.extra_messages = folder->found_messages;
	IGNORE_RESULT(quota_client_note(u->client, &r));
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

/* Whether what is known then is certain. */
static bool look_up(struct usage *u)
{
	const struct quota_request r = request_of(u, QUOTA_LOOKUP);
	struct quota_reply reply;

	if (u->counting)
		return true;
	if (call(u, &r, &reply) < 0) {
		const int rc = count_locally(u);
		return rc == 0 || (u->known && rc != ERR_TEMP);
	}
	usage_settle(u);
	return !u->wants_recount;
}

void usage_lookup(struct usage *u)
{
	(void)look_up(u);
}

void usage_know(struct usage *u)
{
	if (!u->known)
		usage_lookup(u);
}

void usage_after_change(struct usage *u, uint64_t *bytes_out, uint64_t *messages_out)
{
	struct quota_request r = request_of(u, QUOTA_LAST);
	struct quota_reply reply;

	r.op = u->client->last_op;
	if (call(u, &r, &reply) < 0)
		(void)count_locally(u);
	*bytes_out = u->state.used;
	*messages_out = u->state.messages;
}

int usage_set_limits(struct quota_client *client, const char *user, uint64_t limit,
		     uint64_t messages, struct quota_reply *reply_out)
{
	const struct quota_request r = {.verb = QUOTA_LIMIT,
					.user = span_str(user),
					.limit = limit,
					.messages = messages};
	struct quota_reply reply;

	if (quota_client_call(client, &r, &reply) < 0)
		return ERR_TEMP;
	if ((reply.flags & QUOTA_NO_USER) != 0)
		return ERR_NOT_FOUND;
	if (reply.word != QUOTA_OK)
		return ERR_TEMP;
	*reply_out = reply;
	return 0;
}

enum usage_verdict usage_check(struct usage *u, uint64_t bytes,
			       const struct usage_allowance *allowance, bool precise)
{
	/* Full is full even for a message whose size is not known yet. */
	const uint64_t least = bytes > 0 ? bytes : 1;

	/* What is known may be old: good enough to let pass, not to refuse. */
	if (!precise && (!u->known || verdict(u, least, allowance, NULL) == USAGE_OK))
		return USAGE_OK;
	/* A number in doubt refuses nothing: the reservation will see. */
	return look_up(u) ? verdict(u, least, allowance, NULL) : USAGE_OK;
}
