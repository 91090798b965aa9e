/*
 * A cursor that only goes forward; what is opened and never closed is an error
 * of syntax.
 */
#include "milter-dkim/authres_read.h"

#include "milter-dkim/authres.h"

#define ID_MAX 512 /* bytes of an authserv-id */

/* Behind comments and white space; ERR_SYNTAX for a comment without end. */
static int skip_cfws(struct span *s)
{
	size_t depth = 0, i = 0;
	for (; i < s->len; i++) {
		char c = s->ptr[i];
		if (c == '(')
			depth++;
		else if (depth > 0 && c == ')')
			depth--;
		else if (depth > 0 && c == '\\')
			i++;
		else if (depth == 0 && !ascii_isfws(c))
			break;
	}
	*s = span_skip(*s, i);
	return depth == 0 ? 0 : ERR_SYNTAX;
}

/* Up to a blank, or one of these. */
static struct span take_token(struct span *s)
{
	size_t n = 0;
	while (n < s->len && !ascii_isfws(s->ptr[n]) && (s->ptr[n] == '\0' || strchr("()\"=;/", s->ptr[n]) == NULL))
		n++;
	struct span token = span_take(*s, n);
	*s = span_skip(*s, n);
	return token;
}

static bool take(struct span *s, char c)
{
	if (s->len == 0 || s->ptr[0] != c)
		return false;
	*s = span_skip(*s, 1);
	return true;
}

static int take_quoted(struct span *s, struct sbuf *value)
{
	while (s->len > 0) {
		char c = s->ptr[0];
		*s = span_skip(*s, 1);
		if (c == '"')
			return 0;
		if (c == '\\') {
			if (s->len == 0)
				break;
			c = s->ptr[0];
			*s = span_skip(*s, 1);
		}
		sbuf_addc(value, c);
	}
	return ERR_SYNTAX;
}

bool authres_is_by(struct span value, struct span authserv_id)
{
	char mem[ID_MAX];
	struct sbuf id;
	sbuf_init(&id, mem, sizeof(mem));
	if (skip_cfws(&value) < 0)
		return false;
	if (!take(&value, '"'))
		sbuf_add(&id, take_token(&value));
	else if (take_quoted(&value, &id) < 0)
		return false;
	size_t behind = value.len;
	if (skip_cfws(&value) < 0)
		return false;
	/* What touches the id belongs to it, and is then neither of its forms. */
	struct span version = value.len < behind ? take_token(&value) : SPAN_EMPTY;
	if ((version.len > 0 && !span_eq(version, SPAN_LIT("1"))) || skip_cfws(&value) < 0)
		return false;
	return (value.len == 0 || take(&value, ';')) && sbuf_ok(&id) && authres_same_id(sbuf_span(&id), authserv_id);
}

/* A value: quoted strings and other text that touch. */
static int take_value(struct span *s, struct sbuf *value)
{
	sbuf_reset(value);
	size_t before = s->len;
	int rc = skip_cfws(s);
	while (rc == 0 && s->len > 0 && !ascii_isfws(s->ptr[0]) && strchr(";()", s->ptr[0]) == NULL) {
		if (take(s, '"')) {
			rc = take_quoted(s, value);
		} else {
			sbuf_addc(value, s->ptr[0]);
			*s = span_skip(*s, 1);
		}
	}
	return rc == 0 && s->len == before ? ERR_SYNTAX : rc;
}

/* One "name=value" behind a result; ERR_NOT_FOUND at the end of the result. */
static int take_pair(struct span *s, struct span *name_out, struct sbuf *value)
{
	int rc = skip_cfws(s);
	if (rc < 0)
		return rc;
	if (s->len == 0 || s->ptr[0] == ';')
		return ERR_NOT_FOUND;
	*name_out = take_token(s);
	rc = skip_cfws(s);
	if (rc < 0 || name_out->len == 0 || !take(s, '='))
		return ERR_SYNTAX;
	return take_value(s, value);
}

/* AUTH_RESULTS where there is none of that name. */
static enum auth_result result_of(struct span word)
{
	unsigned i = 0;
	while (i < AUTH_RESULTS && !span_ieq(word, span_str(auth_result_name((enum auth_result)i))))
		i++;
	return (enum auth_result)i;
}

/* "method/version = result". */
static int take_result(struct span *s, struct authres_item *item)
{
	item->method = take_token(s);
	int rc = skip_cfws(s);
	if (rc == 0 && take(s, '/')) {
		rc = skip_cfws(s);
		(void)take_token(s);
		rc = rc == 0 ? skip_cfws(s) : rc;
	}
	if (rc < 0 || item->method.len == 0 || !take(s, '='))
		return ERR_SYNTAX;
	rc = skip_cfws(s);
	struct span word = take_token(s);
	item->result = result_of(word);
	return rc == 0 && word.len == 0 ? ERR_SYNTAX : rc;
}

int authres_next(struct span *rest, struct authres_item *item_out)
{
	struct authres_item item;
	struct span s = *rest, name;
	char mem[1];
	struct sbuf unused;
	sbuf_init(&unused, mem, sizeof(mem));
	int rc = skip_cfws(&s);
	if (rc == 0 && s.len == 0)
		return ERR_NOT_FOUND;
	if (rc == 0)
		rc = take_result(&s, &item);
	if (rc < 0)
		return rc;
	item.properties = s;
	while ((rc = take_pair(&s, &name, &unused)) == 0)
		;
	if (rc != ERR_NOT_FOUND)
		return rc;
	item.properties.len -= s.len;
	(void)take(&s, ';');
	*rest = s;
	*item_out = item;
	return 0;
}

int authres_get(const struct authres_item *item, const char *property, struct sbuf *value)
{
	struct span s = item->properties, name;
	int rc;
	while ((rc = take_pair(&s, &name, value)) == 0)
		if (span_ieq(name, span_str(property)))
			return sbuf_ok(value) ? 0 : ERR_SYNTAX;
	return rc;
}

bool authres_find(struct span results, const char *method, enum auth_result *result_out)
{
	struct authres_item item;
	while (authres_next(&results, &item) == 0) {
		if (!span_ieq(item.method, span_str(method)))
			continue;
		if (item.result < AUTH_RESULTS)
			*result_out = item.result;
		return item.result < AUTH_RESULTS;
	}
	return false;
}
