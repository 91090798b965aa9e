/*
 * What a mail server may send the milter: packets tile the input, texts stay within
 * their packet, and what is written from them can be read again.
 */
#include "milter-dkim/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must_read_back(const struct sbuf *out, size_t packets)
{
	struct span in = sbuf_span(out);
	struct wire_packet packet;
	size_t missing;
	for (size_t i = 0; i < packets; i++)
		if (wire_next(&in, &packet, &missing) < 0)
			PANIC("a reply is no packet");
	if (in.len > 0 || !sbuf_ok(out))
		PANIC("a reply is more than one packet");
}

static void write_texts(struct span name, struct span value)
{
	struct sbuf out;
	size_t packets = 0;
	sbuf_init_heap(&out, 8u << 20);
	packets += wire_add_insert(&out, name, value) == 0;
	packets += wire_add_remove(&out, name, 1) == 0;
	packets += wire_add_quarantine(&out, value) == 0;
	packets += wire_add_reply_code(&out, SPAN_LIT("451"), SPAN_LIT("4.7.1"), value) == 0;
	must_read_back(&out, packets);
	sbuf_done(&out);
}

static void read_data(struct span data)
{
	struct wire_offer offer;
	struct wire_client client;
	struct span rest = data, name, value;
	if (wire_read_offer(data, &offer) == 0 && data.len < 12)
		PANIC("an offer out of nothing");
	if (wire_read_client(data, &client) == 0 && client.name.len >= data.len)
		PANIC("a client out of nothing");
	while (wire_text(&rest, &name) == 0 && wire_text(&rest, &value) == 0) {
		if (rest.len > data.len || name.len + value.len + 2 > data.len)
			PANIC("a text outside its packet");
		write_texts(name, value);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span in = span_of(data, size);
	struct wire_packet packet;
	size_t missing = 0, used = 0;
	int rc;
	while ((rc = wire_next(&in, &packet, &missing)) == 0) {
		used += WIRE_HEAD_BYTES + packet.data.len;
		if (used + in.len != size || (const uint8_t *)packet.data.ptr + packet.data.len != data + used)
			PANIC("packets do not tile the input");
		read_data(packet.data);
	}
	if (rc == ERR_AGAIN && (missing == 0 || missing > WIRE_DATA_MAX + WIRE_HEAD_BYTES))
		PANIC("a wrong number of bytes is missing");
	return 0;
}
