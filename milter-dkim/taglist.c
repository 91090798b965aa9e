/*
 * Invariant: list->count <= TAGLIST_TAGS_MAX and no two tags share a name.
 */
#include "taglist.h"

static bool name_ok(struct span name)
{
	if (name.len == 0 || !ascii_isalpha(name.ptr[0]))
		return false;
	for (size_t i = 1; i < name.len; i++)
		if (!ascii_isalnum(name.ptr[i]) && name.ptr[i] != '_')
			return false;
	return true;
}

/* Any byte but controls; bytes from 0x80 on are left to who uses the value. */
static bool value_ok(struct span value)
{
	for (size_t i = 0; i < value.len; i++) {
		unsigned char c = (unsigned char)value.ptr[i];
		if ((c < 32 && !ascii_isfws(value.ptr[i])) || c == 127)
			return false;
	}
	return true;
}

static int parse_tag(struct span spec, struct tag *tag_out)
{
	struct tag tag;
	struct span rest = spec;
	if (!span_cut(&rest, '=', &tag.name))
		return ERR_SYNTAX;
	tag.name = span_trim(tag.name);
	tag.value = span_trim(rest);
	if (!name_ok(tag.name) || !value_ok(tag.value))
		return ERR_SYNTAX;
	*tag_out = tag;
	return 0;
}

int taglist_parse(struct span text, struct taglist *list_out)
{
	if (text.len > TAGLIST_BYTES_MAX)
		return ERR_LIMIT;
	struct taglist list = {.count = 0};
	struct span rest = text, spec;
	bool more = true;
	while (more) {
		more = span_cut(&rest, ';', &spec);
		if (!more && list.count > 0 && span_trim(spec).len == 0)
			break;
		struct tag tag;
		if (parse_tag(spec, &tag) < 0)
			return ERR_SYNTAX;
		for (size_t i = 0; i < list.count; i++)
			if (span_eq(list.tags[i].name, tag.name))
				return ERR_SYNTAX;
		if (list.count == TAGLIST_TAGS_MAX)
			return ERR_LIMIT;
		list.tags[list.count++] = tag;
	}
	*list_out = list;
	return 0;
}

bool taglist_get(const struct taglist *list, const char *name, struct span *value_out)
{
	for (size_t i = 0; i < list->count; i++) {
		if (span_eq(list->tags[i].name, span_str(name))) {
			*value_out = list->tags[i].value;
			return true;
		}
	}
	return false;
}

bool taglist_item(struct taglist_items *items, struct span *item_out)
{
	if (items->end)
		return false;
	struct span item;
	items->end = !span_cut(&items->rest, ':', &item);
	*item_out = span_trim(item);
	return true;
}
