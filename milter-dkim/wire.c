/*
 * Invariants: nothing is read past the span that is given, and a packet that cannot
 * be written whole is not written at all.
 */
#include "milter-dkim/wire.h"

#include <endian.h>

#define OFFER_BYTES 12u

static uint32_t get_u32(const char *from)
{
	uint32_t value;
	memcpy(&value, from, sizeof(value));
	return be32toh(value);
}

static void add_u32(struct sbuf *out, uint32_t value)
{
	value = htobe32(value);
	sbuf_add(out, span_of(&value, sizeof(value)));
}

int wire_next(struct span *in, struct wire_packet *packet_out, size_t *missing_out)
{
	if (in->len < sizeof(uint32_t)) {
		*missing_out = WIRE_HEAD_BYTES - in->len;
		return ERR_AGAIN;
	}
	size_t len = get_u32(in->ptr);
	if (len == 0)
		return ERR_SYNTAX;
	if (len - 1 > WIRE_DATA_MAX)
		return ERR_LIMIT;
	size_t whole = sizeof(uint32_t) + len;
	if (in->len < whole) {
		*missing_out = whole - in->len;
		return ERR_AGAIN;
	}
	packet_out->command = in->ptr[sizeof(uint32_t)];
	packet_out->data = span_of(in->ptr + WIRE_HEAD_BYTES, len - 1);
	*in = span_skip(*in, whole);
	return 0;
}

int wire_text(struct span *data, struct span *text_out)
{
	size_t end = span_chr(*data, '\0');
	if (end == SPAN_NPOS)
		return ERR_SYNTAX;
	*text_out = span_take(*data, end);
	*data = span_skip(*data, end + 1);
	return 0;
}

int wire_read_offer(struct span data, struct wire_offer *offer_out)
{
	if (data.len < OFFER_BYTES)
		return ERR_SYNTAX;
	*offer_out = (struct wire_offer){get_u32(data.ptr), get_u32(data.ptr + 4), get_u32(data.ptr + 8)};
	return 0;
}

/* Sendmail writes "IPv6:" before the address, as in an address literal of SMTP. */
static int read_address(char family, struct span text, struct ip *ip_out)
{
	static const struct span tag = SPAN_LIT("IPv6:");
	if (family == '6' && span_istarts(text, tag))
		text = span_skip(text, tag.len);
	return ip_parse(text, ip_out);
}

int wire_read_client(struct span data, struct wire_client *client_out)
{
	struct wire_client client = {.ip.bits = 0};
	struct span address;
	if (wire_text(&data, &client.name) < 0 || data.len == 0)
		return ERR_SYNTAX;
	char family = data.ptr[0];
	data = span_skip(data, 1);
	if (family == 'U' || family == 'L') {
		*client_out = client;
		return 0;
	}
	/* Who is taken for nobody in particular is taken for ours. */
	if ((family != '4' && family != '6') || data.len < sizeof(client.port))
		return ERR_SYNTAX;
	memcpy(&client.port, data.ptr, sizeof(client.port));
	client.port = be16toh(client.port);
	data = span_skip(data, sizeof(client.port));
	if (wire_text(&data, &address) < 0 || read_address(family, address, &client.ip) < 0)
		return ERR_SYNTAX;
	*client_out = client;
	return 0;
}

/* ---- what is written ---- */

/* The head of a packet whose data has LEN bytes. */
static void add_head(struct sbuf *out, enum wire_reply reply, size_t len)
{
	add_u32(out, (uint32_t)len + 1);
	sbuf_addc(out, (char)reply);
}

static void add_text(struct sbuf *out, struct span text)
{
	sbuf_add(out, text);
	sbuf_addc(out, '\0');
}

static bool has_nul(struct span text)
{
	return span_chr(text, '\0') != SPAN_NPOS;
}

void wire_add(struct sbuf *out, enum wire_reply reply)
{
	add_head(out, reply, 0);
}

void wire_add_offer(struct sbuf *out, const struct wire_offer *offer, const struct wire_macro_list *lists,
		    size_t list_count)
{
	size_t len = OFFER_BYTES;
	for (size_t i = 0; i < list_count; i++)
		len += sizeof(uint32_t) + strlen(lists[i].names) + 1;
	add_head(out, (enum wire_reply)WIRE_NEGOTIATE, len);
	add_u32(out, offer->version);
	add_u32(out, offer->actions);
	add_u32(out, offer->steps);
	for (size_t i = 0; i < list_count; i++) {
		add_u32(out, (uint32_t)lists[i].stage);
		add_text(out, span_str(lists[i].names));
	}
}

static int add_field(struct sbuf *out, enum wire_reply reply, uint32_t number, struct span name, struct span value)
{
	if (name.len == 0 || has_nul(name) || has_nul(value))
		return ERR_SYNTAX;
	add_head(out, reply, sizeof(number) + name.len + 1 + value.len + 1);
	add_u32(out, number);
	add_text(out, name);
	add_text(out, value);
	return 0;
}

int wire_add_insert(struct sbuf *out, struct span name, struct span value)
{
	return add_field(out, WIRE_INSERT_HEADER, 0, name, value);
}

/* A field is removed by taking its value away. */
int wire_add_remove(struct sbuf *out, struct span name, uint32_t ordinal)
{
	return add_field(out, WIRE_CHANGE_HEADER, ordinal, name, SPAN_EMPTY);
}

int wire_add_quarantine(struct sbuf *out, struct span reason)
{
	if (has_nul(reason))
		return ERR_SYNTAX;
	add_head(out, WIRE_QUARANTINE, reason.len + 1);
	add_text(out, reason);
	return 0;
}

/* One line of SMTP, in which the MTA takes "%%" for "%". */
int wire_add_reply_code(struct sbuf *out, struct span code, struct span status, struct span text)
{
	size_t percents = 0;
	for (size_t i = 0; i < text.len; i++) {
		if (text.ptr[i] == '\0' || text.ptr[i] == '\r' || text.ptr[i] == '\n')
			return ERR_SYNTAX;
		percents += text.ptr[i] == '%';
	}
	if (text.len + percents > WIRE_REPLY_TEXT_MAX)
		return ERR_SYNTAX;
	add_head(out, WIRE_REPLY_CODE, code.len + 1 + status.len + 1 + text.len + percents + 1);
	sbuf_add(out, code);
	sbuf_addc(out, ' ');
	sbuf_add(out, status);
	sbuf_addc(out, ' ');
	for (size_t i = 0; i < text.len; i++) {
		if (text.ptr[i] == '%')
			sbuf_addc(out, '%');
		sbuf_addc(out, text.ptr[i]);
	}
	sbuf_addc(out, '\0');
	return 0;
}
