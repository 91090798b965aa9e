/*
 * One table row a verb gives its name and the order of its fields; encoder and
 * decoder walk the same row, so what one writes the other reads.  A text field
 * never holds a control character, hence neither TAB nor LF: nothing that came
 * from a user name can begin another field or line.
 */
#include "lib/quota/proto.h"

#include "lib/base/num.h"

enum field {
	F_END,
	F_USER,
	F_KEY,
	F_VERSION,
	F_ID,
	F_OP,
	F_BYTES,
	F_MESSAGES,
	F_CREDIT,
	F_LIMIT,
	F_FLAGS,
	F_SEQ,
	F_EXTRA,
	F_EXTRA_MESSAGES,
	F_GRACE,
};

#define FIELDS_MAX 11

struct verb_row {
	const char *name;
	bool has_reply;
	enum field fields[FIELDS_MAX];
};

static const struct verb_row verbs[QUOTA_VERBS] = {
	[QUOTA_HELLO] = {"HELLO", false, {F_VERSION, F_OP}},
	[QUOTA_LOOKUP] = {"LOOKUP", true, {F_USER}},
	[QUOTA_RESERVE] = {"RESERVE",
			   true,
			   {F_USER, F_ID, F_BYTES, F_CREDIT, F_LIMIT, F_FLAGS, F_EXTRA,
			    F_EXTRA_MESSAGES, F_GRACE, F_KEY}},
	[QUOTA_COMMIT] = {"COMMIT", false, {F_USER, F_ID, F_OP, F_BYTES, F_MESSAGES}},
	[QUOTA_RELEASE] = {"RELEASE", false, {F_USER, F_ID}},
	[QUOTA_FREE] = {"FREE", false, {F_USER, F_OP, F_BYTES, F_MESSAGES}},
	[QUOTA_INTENT] = {"INTENT", false, {F_USER}},
	[QUOTA_STALE] = {"STALE", false, {F_USER}},
	[QUOTA_LOGIN] = {"LOGIN", false, {F_USER}},
	[QUOTA_FOLDER] = {"FOLDER",
			  false,
			  {F_USER, F_BYTES, F_MESSAGES, F_EXTRA, F_EXTRA_MESSAGES, F_KEY}},
	[QUOTA_LAST] = {"LAST", true, {F_USER, F_OP}},
	[QUOTA_LIMIT] = {"LIMIT", true, {F_USER, F_LIMIT, F_MESSAGES}},
	[QUOTA_COUNT] = {"COUNT", true, {F_USER}},
	[QUOTA_COUNTED] = {"COUNTED", true, {F_USER, F_SEQ, F_BYTES, F_MESSAGES}},
	[QUOTA_SYNC] = {"SYNC", true, {F_END}},
	[QUOTA_CHECK] = {"CHECK", true, {F_USER, F_BYTES, F_GRACE}},
	[QUOTA_CHANNEL] = {"CHANNEL", false, {F_END}},
};

static const char *const words[QUOTA_WORDS] = {
	[QUOTA_OK] = "OK",	     [QUOTA_OVER] = "OVER",   [QUOTA_BIG] = "BIG",
	[QUOTA_RECOUNT] = "RECOUNT", [QUOTA_RETRY] = "RETRY", [QUOTA_TEMP] = "TEMP",
};

bool quota_verb_has_reply(enum quota_verb verb)
{
	return verbs[verb].has_reply;
}

const char *quota_verb_name(enum quota_verb verb)
{
	return verbs[verb].name;
}

static uint64_t *number_of(struct quota_request *r, enum field field)
{
	switch (field) {
	case F_VERSION:
		return &r->version;
	case F_ID:
		return &r->id;
	case F_OP:
		return &r->op;
	case F_BYTES:
		return &r->bytes;
	case F_MESSAGES:
		return &r->messages;
	case F_CREDIT:
		return &r->credit;
	case F_LIMIT:
		return &r->limit;
	case F_FLAGS:
		return &r->flags;
	case F_SEQ:
		return &r->seq;
	case F_EXTRA:
		return &r->extra;
	case F_EXTRA_MESSAGES:
		return &r->extra_messages;
	case F_GRACE:
		return &r->grace;
	default:
		return NULL;
	}
}

static uint64_t number_max(enum field field)
{
	if (field == F_OP)
		return UINT64_MAX;
	const bool size = field == F_BYTES || field == F_MESSAGES || field == F_CREDIT ||
			  field == F_EXTRA || field == F_EXTRA_MESSAGES || field == F_GRACE;
	return size ? QUOTA_SIZE_MAX : QUOTA_NUMBER_MAX;
}

static bool text_ok(struct span s, size_t min, size_t max)
{
	if (s.len < min || s.len > max)
		return false;
	for (size_t i = 0; i < s.len; i++)
		if ((unsigned char)s.ptr[i] < ' ' || s.ptr[i] == '\x7f')
			return false;
	return true;
}

/* A number in the one form that the encoder writes: no leading zero. */
static int parse_number(struct span s, uint64_t max, uint64_t *value_out)
{
	if (s.len > 1 && s.ptr[0] == '0')
		return ERR_SYNTAX;
	return num_parse_u64(s, max, value_out) < 0 ? ERR_SYNTAX : 0;
}

static int decode_field(struct quota_request *r, enum field field, struct span text)
{
	if (field == F_USER) {
		r->user = text;
		return text_ok(text, 1, QUOTA_USER_MAX) ? 0 : ERR_SYNTAX;
	}
	if (field == F_KEY) {
		r->key = text;
		return text_ok(text, 0, QUOTA_KEY_MAX) ? 0 : ERR_SYNTAX;
	}
	return parse_number(text, number_max(field), number_of(r, field));
}

int quota_request_decode(struct span line, struct quota_request *request_out)
{
	struct quota_request r = {0};
	struct span head;
	bool more = span_cut(&line, '\t', &head);
	unsigned verb = 0;

	while (verb < QUOTA_VERBS && !span_eq(head, span_str(verbs[verb].name)))
		verb++;
	if (verb == QUOTA_VERBS)
		return ERR_SYNTAX;
	r.verb = (enum quota_verb)verb;
	for (const enum field *f = verbs[verb].fields; *f != F_END; f++) {
		if (!more)
			return ERR_SYNTAX;
		more = span_cut(&line, '\t', &head);
		if (decode_field(&r, *f, head) < 0)
			return ERR_SYNTAX;
	}
	if (more)
		return ERR_SYNTAX;
	*request_out = r;
	return 0;
}

int quota_request_encode(const struct quota_request *request, struct sbuf *out)
{
	struct quota_request r = *request;
	const struct verb_row *row = &verbs[r.verb];
	const size_t before = out->len;

	sbuf_adds(out, row->name);
	for (const enum field *f = row->fields; *f != F_END; f++) {
		sbuf_addc(out, '\t');
		const uint64_t *number = number_of(&r, *f);
		const struct span text = *f == F_USER ? r.user : r.key;
		if (number != NULL && *number <= number_max(*f))
			sbuf_addu(out, *number);
		else if (number == NULL && text_ok(text, *f == F_USER ? 1 : 0,
						   *f == F_USER ? QUOTA_USER_MAX : QUOTA_KEY_MAX))
			sbuf_add(out, text);
		else
			goto refuse;
	}
	sbuf_addc(out, '\n');
	if (sbuf_ok(out))
		return 0;
refuse:
	sbuf_truncate(out, before);
	return ERR_SYNTAX;
}

#define REPLY_NUMBERS 10

static void reply_numbers(struct quota_reply *r, uint64_t *numbers[REPLY_NUMBERS])
{
	uint64_t *all[REPLY_NUMBERS] = {
		&r->id,	  &r->limit,	    &r->message_limit, &r->used,  &r->messages,
		&r->room, &r->message_room, &r->seq,	       &r->flags, &r->acked,
	};
	memcpy(numbers, all, sizeof(all));
}

int quota_reply_decode(struct span line, struct quota_reply *reply_out)
{
	struct quota_reply r = {0};
	uint64_t *numbers[REPLY_NUMBERS];
	struct span head;
	bool more = span_cut(&line, '\t', &head);
	unsigned word = 0;

	while (word < QUOTA_WORDS && !span_eq(head, span_str(words[word])))
		word++;
	if (word == QUOTA_WORDS)
		return ERR_SYNTAX;
	r.word = (enum quota_word)word;
	reply_numbers(&r, numbers);
	for (size_t i = 0; i < REPLY_NUMBERS; i++) {
		if (!more)
			return ERR_SYNTAX;
		more = span_cut(&line, '\t', &head);
		if (parse_number(head, QUOTA_NUMBER_MAX, numbers[i]) < 0)
			return ERR_SYNTAX;
	}
	if (more)
		return ERR_SYNTAX;
	*reply_out = r;
	return 0;
}

int quota_reply_encode(const struct quota_reply *reply, struct sbuf *out)
{
	struct quota_reply r = *reply;
	uint64_t *numbers[REPLY_NUMBERS];
	const size_t before = out->len;

	sbuf_adds(out, words[r.word]);
	reply_numbers(&r, numbers);
	for (size_t i = 0; i < REPLY_NUMBERS; i++) {
		if (*numbers[i] > QUOTA_NUMBER_MAX)
			goto refuse;
		sbuf_addc(out, '\t');
		sbuf_addu(out, *numbers[i]);
	}
	sbuf_addc(out, '\n');
	if (sbuf_ok(out))
		return 0;
refuse:
	sbuf_truncate(out, before);
	return ERR_SYNTAX;
}
