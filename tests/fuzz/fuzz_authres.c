/*
 * Authentication-Results: reading what came, and writing values from outside.
 * Whatever the values, the field stays one line, is recognised as ours, and has
 * no more results than were written.
 */
#include "milter-dkim/authres.h"

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
	if (!authres_is_from(field, id))
		PANIC("our own field is not recognised");
	enum auth_result spf, dkim, dmarc;
	struct span results = authres_results(field);
	if (!authres_find(results, "spf", &spf) || !authres_find(results, "dkim", &dkim) || spf != AUTH_PASS ||
	    dkim != AUTH_FAIL || authres_find(results, "dmarc", &dmarc))
		PANIC("a value has changed a result");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span all = span_of(data, size), id = SPAN_LIT("mx.example.org");
	(void)authres_is_from(all, id);
	(void)authres_results(all);
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
	sbuf_done(&out);
	return 0;
}
