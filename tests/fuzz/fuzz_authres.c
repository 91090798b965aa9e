/*
 * Authentication-Results: reading what came, and writing values from outside.
 * Whatever the values, the field stays one line, is recognised as ours, and has
 * no more results than were written.
 */
#include "milter-dkim/authres.h"
#include "milter-dkim/authres_read.h"
#include "milter-dkim/receivedspf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_written(struct span field, struct span id)
{
	bool quoted = false;
	size_t comment = 0, semicolons = 0;
	for (size_t i = 0; i < field.len; i++) {
		unsigned char c = (unsigned char)field.ptr[i];
		if (c < ' ' || c == 0x7f)
			PANIC("a control character");
		if (c == '\\' && (quoted || comment > 0))
			i++;
		else if (c == '"' && comment == 0)
			quoted = !quoted;
		else if (c == '(' && !quoted)
			comment++;
		else if (c == ')' && !quoted && comment > 0)
			comment--;
		else if (c == ';' && !quoted && comment == 0)
			semicolons++;
	}
	if (quoted || comment > 0 || semicolons != 2)
		PANIC("a value has changed the syntax");
	if (!authres_is_from(field, id) || !authres_is_by(field, id))
		PANIC("our own field is not recognised");
	enum auth_result spf, dkim, dmarc;
	struct span results = authres_results(field);
	if (!authres_find(results, "spf", &spf) || !authres_find(results, "dkim", &dkim) || spf != AUTH_PASS ||
	    dkim != AUTH_FAIL || authres_find(results, "dmarc", &dmarc))
		PANIC("a value has changed a result");
}

/* What we wrote is read back as it was meant. */
static void check_read(struct span results)
{
	static const struct {
		const char *method, *property;
		enum auth_result result;
	} wanted[] = {{"spf", "smtp.mailfrom", AUTH_PASS}, {"dkim", "header.d", AUTH_FAIL}};
	char mem[4096];
	struct sbuf value;
	struct authres_item item;
	sbuf_init(&value, mem, sizeof(mem));
	for (size_t i = 0; i < 2; i++) {
		if (authres_next(&results, &item) < 0 || !span_eq(item.method, span_str(wanted[i].method)) ||
		    item.result != wanted[i].result)
			PANIC("a result is read as another");
		int rc = authres_get(&item, wanted[i].property, &value);
		if (rc < 0 && rc != ERR_NOT_FOUND)
			PANIC("a property cannot be read");
	}
	if (authres_next(&results, &item) != ERR_NOT_FOUND)
		PANIC("a value has made a result");
}

static void check_strange(struct span text)
{
	char mem[64];
	struct sbuf value;
	struct authres_item item;
	struct span rest = text;
	sbuf_init(&value, mem, sizeof(mem));
	while (authres_next(&rest, &item) == 0) {
		if (item.method.len == 0 || item.properties.len > text.len)
			PANIC("a result of nothing");
		if (authres_get(&item, "header.from", &value) == 0 && !sbuf_ok(&value))
			PANIC("a value that does not fit");
	}
}

static void check_received_spf(struct span text, struct span id)
{
	struct sbuf out;
	const struct spf_request request = {.ip = {.bits = 32}, .helo = text, .mail_from = text, .receiver = id};
	const struct spf_verdict v = {.result = AUTH_PASS, .identity = SPF_MAILFROM, .mechanism = text};
	(void)receivedspf_is_from(text, id);
	sbuf_init_heap(&out, 1 << 14);
	receivedspf_write(&request, &v, "", &out);
	if (!sbuf_ok(&out) || !receivedspf_is_from(sbuf_span(&out), id))
		PANIC("our own field is not recognised");
	bool quoted = false;
	int comment = 0;
	for (size_t i = 0; i < out.len; i++) {
		unsigned char c = (unsigned char)out.ptr[i];
		if ((c < ' ' && c != '\t') || c == 0x7f)
			PANIC("a control character");
		if (c == '\\')
			i++;
		else if (c == '"' && comment == 0)
			quoted = !quoted;
		else if (!quoted)
			comment += c == '(' ? 1 : c == ')' ? -1 : 0;
	}
	if (quoted || comment != 0)
		PANIC("a value has changed the syntax");
	sbuf_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span all = span_of(data, size), id = SPAN_LIT("mx.example.org");
	if (authres_is_by(all, id) && !authres_is_from(all, id))
		PANIC("a field is believed that would not be removed");
	struct span results = authres_results(all);
	enum auth_result said;
	if (results.len > size || authres_instance(all, 50) > 50 || (authres_find(results, "arc", &said) && said >= AUTH_RESULTS))
		PANIC("more is read than there is");
	check_strange(all);
	check_received_spf(all, id);
	struct sbuf out;
	struct authres a;
	sbuf_init_heap(&out, 1 << 16);
	authres_begin(&a, &out, id, NULL);
	authres_method(&a, "spf", AUTH_PASS);
	authres_comment(&a, all);
	authres_reason(&a, all);
	authres_property(&a, "smtp.mailfrom", all);
	authres_method(&a, "dkim", AUTH_FAIL);
	authres_property(&a, "header.d", all);
	authres_end(&a);
	if (!sbuf_ok(&out))
		PANIC("values are capped, so the field is");
	check_written(sbuf_span(&out), id);
	check_read(authres_results(sbuf_span(&out)));
	sbuf_done(&out);
	return 0;
}
