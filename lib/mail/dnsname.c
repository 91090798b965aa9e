/*
 * Works on the text as it is; a name is never copied or changed.
 */
#include "lib/mail/dnsname.h"

bool dnsname_valid(struct span name)
{
	if (name.len == 0 || name.len > DNSNAME_MAX || span_chr(name, '\0') != SPAN_NPOS)
		return false;
	bool more = true;
	while (more) {
		struct span label;
		more = span_cut(&name, '.', &label);
		if (label.len == 0 || label.len > DNSNAME_LABEL_MAX)
			return false;
	}
	return true;
}

static bool mail_label(struct span label)
{
	for (size_t i = 0; i < label.len; i++) {
		char c = label.ptr[i];
		if (!ascii_isalnum(c) && c != '-' && c != '_' && (unsigned char)c < 0x80)
			return false;
	}
	return label.ptr[0] != '-' && label.ptr[label.len - 1] != '-';
}

bool dnsname_host_valid(struct span name)
{
	if (!dnsname_valid(name))
		return false;
	struct span rest = name, label;
	bool more = true;
	while (more) {
		more = span_cut(&rest, '.', &label);
		if (!mail_label(label))
			return false;
	}
	for (size_t i = 0; i < label.len; i++)
		if (!ascii_isdigit(label.ptr[i]))
			return true;
	return false;
}

bool dnsname_mail_valid(struct span name)
{
	return span_chr(name, '.') != SPAN_NPOS && dnsname_host_valid(name);
}

struct span dnsname_trim(struct span name)
{
	if (name.len > 0 && name.ptr[name.len - 1] == '.')
		name.len--;
	return name;
}

size_t dnsname_labels(struct span name)
{
	if (name.len == 0)
		return 0;
	size_t count = 1;
	for (size_t i = 0; i < name.len; i++)
		count += name.ptr[i] == '.';
	return count;
}

struct span dnsname_parent(struct span name)
{
	size_t dot = span_chr(name, '.');
	return dot == SPAN_NPOS ? SPAN_EMPTY : span_skip(name, dot + 1);
}

struct span dnsname_tail(struct span name, size_t count)
{
	for (size_t have = dnsname_labels(name); have > count; have--)
		name = dnsname_parent(name);
	return name;
}

bool dnsname_under(struct span name, struct span parent)
{
	if (name.len == parent.len)
		return span_ieq(name, parent);
	return parent.len > 0 && name.len > parent.len && span_iends(name, parent) &&
	       name.ptr[name.len - parent.len - 1] == '.';
}
