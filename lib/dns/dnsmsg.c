/*
 * All reading goes through struct reader, whose error sticks: past the end
 * every integer is 0 and every name empty, and the caller checks once.
 * Compression pointers must point backwards, so that following them ends.
 */
#include "lib/dns/dnsmsg.h"

#include "lib/mail/dnsname.h"

#define HEADER_BYTES 12
#define CLASS_IN 1
#define TYPE_SOA 6
#define TYPE_OPT 41
#define NAME_TEXT_MAX 255

#define FLAG_RESPONSE 0x8000
#define FLAG_RECURSION 0x0100
#define FLAG_AUTHENTIC 0x0020
#define RCODE_MASK 0x000f
#define RCODE_NXDOMAIN 3

static void add_u16(struct sbuf *out, unsigned value)
{
	sbuf_addc(out, (char)(value >> 8));
	sbuf_addc(out, (char)(value & 0xff));
}

int dnsmsg_query(struct span name, enum dns_type type, uint16_t id, struct sbuf *out)
{
	if (!dnsname_valid(name))
		return ERR_SYNTAX;
	add_u16(out, id);
	add_u16(out, FLAG_RECURSION | FLAG_AUTHENTIC);
	add_u16(out, 1);
	add_u16(out, 0);
	add_u16(out, 0);
	add_u16(out, 1);
	bool more = true;
	while (more) {
		struct span label;
		more = span_cut(&name, '.', &label);
		sbuf_addc(out, (char)label.len);
		sbuf_add(out, label);
	}
	sbuf_addc(out, 0);
	add_u16(out, type);
	add_u16(out, CLASS_IN);
	sbuf_addc(out, 0);
	add_u16(out, TYPE_OPT);
	add_u16(out, DNSMSG_UDP_SIZE);
	add_u16(out, 0);
	add_u16(out, 0);
	add_u16(out, 0);
	return sbuf_ok(out) ? 0 : ERR_LIMIT;
}

struct reader {
	struct span message;
	size_t at;
	bool bad;
};

struct name {
	char text[NAME_TEXT_MAX + 1]; /* lower case, dots between labels */
	size_t len;
	bool odd; /* holds a byte that no text of ours can carry */
};

struct record {
	unsigned type;
	uint32_t ttl;
	struct reader data; /* at the start of the data; message ends behind it */
};

static unsigned read_u8(struct reader *r)
{
	if (r->at >= r->message.len) {
		r->bad = true;
		return 0;
	}
	return (unsigned char)r->message.ptr[r->at++];
}

static unsigned read_u16(struct reader *r)
{
	unsigned high = read_u8(r);
	return high << 8 | read_u8(r);
}

static uint32_t read_u32(struct reader *r)
{
	uint32_t high = read_u16(r);
	return high << 16 | read_u16(r);
}

static void add_label(struct reader *r, size_t len, struct name *name)
{
	if (name->len + len + 1 > NAME_TEXT_MAX) {
		r->bad = true;
		return;
	}
	if (name->len > 0)
		name->text[name->len++] = '.';
	for (size_t i = 0; i < len; i++) {
		char c = (char)read_u8(r);
		name->odd = name->odd || c == '.' || c == '\0';
		name->text[name->len++] = ascii_lower(c);
	}
}

static void read_name(struct reader *r, struct name *name)
{
	struct reader at = *r;
	size_t lowest = r->at;
	bool jumped = false;
	name->len = 0;
	name->odd = false;
	while (!at.bad) {
		unsigned len = read_u8(&at);
		if (len == 0)
			break;
		if (len < 0x40) {
			add_label(&at, len, name);
			continue;
		}
		size_t target = (len & 0x3f) << 8 | read_u8(&at);
		if (!jumped)
			r->at = at.at;
		jumped = true;
		if (len < 0xc0 || target >= lowest)
			at.bad = true;
		lowest = target;
		at.at = target;
	}
	if (!jumped)
		r->at = at.at;
	r->bad = r->bad || at.bad;
}

static struct span name_span(const struct name *name)
{
	return span_of(name->text, name->len);
}

static void read_record(struct reader *r, struct name *owner, struct record *record)
{
	read_name(r, owner);
	record->type = read_u16(r);
	unsigned class = read_u16(r);
	record->ttl = read_u32(r);
	size_t len = read_u16(r);
	if (class != CLASS_IN)
		record->type = 0;
	if (len > r->message.len - r->at)
		r->bad = true;
	if (r->bad)
		return;
	record->data = *r;
	record->data.message.len = r->at + len;
	r->at += len;
}

struct sections {
	struct reader answers;
	size_t answer_count, authority_count;
	unsigned flags;
};

static int read_header(struct span message, struct span name, enum dns_type type, struct sections *s)
{
	struct reader r = {.message = message, .at = 2};
	struct name question;
	s->flags = read_u16(&r);
	unsigned questions = read_u16(&r);
	s->answer_count = read_u16(&r);
	s->authority_count = read_u16(&r);
	(void)read_u16(&r);
	read_name(&r, &question);
	unsigned asked = read_u16(&r), class = read_u16(&r);
	if (r.bad || questions != 1 || (s->flags & FLAG_RESPONSE) == 0 || asked != type || class != CLASS_IN ||
	    !span_ieq(name_span(&question), name))
		return ERR_SYNTAX;
	s->answers = r;
	return 0;
}

static bool parse_text(struct reader *r, struct arena *a, struct dns_record *out)
{
	size_t size = r->message.len - r->at;
	char *text = arena_alloc(a, size + 1);
	if (text == NULL)
		return false;
	size_t len = 0;
	while (r->at < r->message.len) {
		size_t piece = read_u8(r);
		if (piece > r->message.len - r->at)
			r->bad = true;
		out->strings++;
		for (size_t i = 0; i < piece && !r->bad; i++)
			text[len++] = (char)read_u8(r);
		if (r->bad)
			break;
	}
	out->text = span_of(text, len);
	return true;
}

static void parse_address(struct reader *r, uint8_t bits, struct ip *ip_out)
{
	*ip_out = (struct ip){.bits = bits};
	if (r->message.len - r->at != bits / 8)
		r->bad = true;
	for (size_t i = 0; i < bits / 8 && !r->bad; i++)
		ip_out->bytes[i] = (uint8_t)read_u8(r);
}

/* 0; ERR_SYNTAX for broken data, ERR_NOT_FOUND for a name of no use. */
static int parse_data(const struct record *record, struct arena *a, struct dns_record *out)
{
	struct reader r = record->data;
	struct name name = {.len = 0};
	*out = (struct dns_record){0};
	switch (record->type) {
	case DNS_TXT:
		if (!parse_text(&r, a, out))
			return ERR_LIMIT;
		return r.bad ? ERR_SYNTAX : 0;
	case DNS_A:
		parse_address(&r, 32, &out->address);
		return r.bad ? ERR_SYNTAX : 0;
	case DNS_AAAA:
		parse_address(&r, 128, &out->address);
		return r.bad ? ERR_SYNTAX : 0;
	case DNS_MX:
		out->preference = (uint16_t)read_u16(&r);
		break;
	default:
		break;
	}
	read_name(&r, &name);
	if (r.bad || r.at != r.message.len)
		return ERR_SYNTAX;
	return name.odd ? ERR_NOT_FOUND : arena_dup(a, name_span(&name), &out->text);
}

struct collect {
	struct arena *arena;
	struct dns_record *records;
	size_t count;
	uint32_t ttl;
	bool failed;
};

/*
 * Collects the records of OWNER and TYPE.  Where there are none, an alias of
 * OWNER replaces it and 1 is returned.
 */
static int scan_answers(const struct sections *s, enum dns_type type, struct name *owner, struct collect *c)
{
	struct reader r = s->answers;
	struct name at, target = {.len = 0};
	struct record record = {.type = 0};
	bool alias = false;
	for (size_t i = 0; i < s->answer_count; i++) {
		read_record(&r, &at, &record);
		if (r.bad || i >= DNSMSG_RECORDS_SCAN_MAX)
			return ERR_SYNTAX;
		if (at.odd || !span_eq(name_span(&at), name_span(owner)))
			continue;
		if (record.type == DNS_CNAME && !alias) {
			alias = true;
			read_name(&record.data, &target);
			if (record.data.bad || target.odd)
				return ERR_SYNTAX;
		} else if (record.type != (unsigned)type) {
			continue;
		} else if (c->count == DNS_RECORDS_MAX) {
			c->failed = true;
			return 0;
		} else {
			int rc = parse_data(&record, c->arena, &c->records[c->count]);
			if (rc == ERR_NOT_FOUND)
				continue;
			if (rc < 0)
				return rc;
			c->count++;
		}
		c->ttl = record.ttl < c->ttl ? record.ttl : c->ttl;
	}
	if (c->count > 0 || !alias)
		return 0;
	*owner = target;
	return 1;
}

/* The time for which the absence may be kept; false without an SOA. */
static bool negative_ttl(const struct sections *s, uint32_t *ttl_out)
{
	struct reader r = s->answers;
	struct name name;
	struct record record;
	for (size_t i = 0; i < s->answer_count + s->authority_count && i < DNSMSG_RECORDS_SCAN_MAX; i++) {
		read_record(&r, &name, &record);
		if (r.bad)
			return false;
		if (i < s->answer_count || record.type != TYPE_SOA)
			continue;
		struct reader soa = record.data;
		read_name(&soa, &name);
		read_name(&soa, &name);
		for (int k = 0; k < 4; k++)
			(void)read_u32(&soa);
		uint32_t minimum = read_u32(&soa);
		if (soa.bad)
			return false;
		*ttl_out = minimum < record.ttl ? minimum : record.ttl;
		return true;
	}
	return false;
}

static int fill_reply(const struct sections *s, struct span name, enum dns_type type, struct collect *c,
		      struct dnsmsg_reply *reply)
{
	struct name owner = {.len = name.len};
	unsigned rcode = s->flags & RCODE_MASK;
	uint32_t ttl = 0;
	int rc = 1;
	for (size_t i = 0; i < name.len; i++)
		owner.text[i] = ascii_lower(name.ptr[i]);
	for (unsigned aliases = 0; rc == 1; aliases++) {
		if (aliases > DNSMSG_ALIASES_MAX) {
			c->failed = true;
			break;
		}
		rc = scan_answers(s, type, &owner, c);
		reply->answer.aliases = aliases;
	}
	if (rc < 0)
		return rc;
	bool negative = negative_ttl(s, &ttl);
	reply->answer.ttl_s = c->ttl;
	if (c->failed || (rcode != 0 && rcode != RCODE_NXDOMAIN)) {
		reply->answer.status = DNS_FAILED;
	} else if (c->count > 0) {
		reply->answer.status = DNS_OK;
		reply->answer.count = c->count;
	} else {
		reply->answer.status = rcode == RCODE_NXDOMAIN ? DNS_NXDOMAIN : DNS_NODATA;
		reply->answer.ttl_s = ttl < c->ttl ? ttl : c->ttl;
		bool aliased = !span_ieq(name_span(&owner), name);
		if (aliased && rcode == 0 && !negative)
			return arena_dup(c->arena, name_span(&owner), &reply->alias);
	}
	return 0;
}

int dnsmsg_parse(struct span message, struct span name, enum dns_type type, struct arena *a,
		 struct dnsmsg_reply *reply_out)
{
	struct sections s;
	struct dnsmsg_reply reply = {.alias = SPAN_EMPTY};
	if (name.len > DNSNAME_MAX || read_header(message, name, type, &s) < 0)
		return ERR_SYNTAX;
	struct collect c = {.arena = a, .ttl = UINT32_MAX};
	c.records = arena_calloc(a, DNS_RECORDS_MAX, sizeof(*c.records));
	if (c.records == NULL)
		return ERR_LIMIT;
	reply.answer.records = c.records;
	reply.answer.authenticated = (s.flags & FLAG_AUTHENTIC) != 0;
	int rc = fill_reply(&s, name, type, &c, &reply);
	if (rc < 0)
		return rc;
	*reply_out = reply;
	return 0;
}

struct dns_answer *dnsmsg_answer_dup(const struct dns_answer *answer, size_t *bytes_out)
{
	size_t bytes = sizeof(*answer) + answer->count * sizeof(struct dns_record);
	for (size_t i = 0; i < answer->count; i++)
		bytes += answer->records[i].text.len;
	struct dns_answer *copy = mem_alloc(bytes);
	struct dns_record *records = (struct dns_record *)(copy + 1);
	char *text = (char *)(records + answer->count);
	*copy = *answer;
	copy->records = records;
	for (size_t i = 0; i < answer->count; i++) {
		struct span from = answer->records[i].text;
		records[i] = answer->records[i];
		records[i].text.ptr = text;
		if (from.len > 0)
			memcpy(text, from.ptr, from.len);
		text += from.len;
	}
	*bytes_out = bytes;
	return copy;
}
