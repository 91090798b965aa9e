/* Letter case does not matter, neither in domains nor in addresses. */
#include "postern/report_rules.h"

#include "lib/mail/addr.h"
#include "lib/mail/dnsname.h"

static bool next_entry(struct span *rest, struct span *entry_out)
{
	size_t start = 0, end;
	while (start < rest->len && (rest->ptr[start] == ',' || ascii_isfws(rest->ptr[start])))
		start++;
	for (end = start; end < rest->len && rest->ptr[end] != ',' && !ascii_isfws(rest->ptr[end]);)
		end++;
	*entry_out = span_of(rest->ptr + start, end - start);
	*rest = span_skip(*rest, end);
	return entry_out->len > 0;
}

int report_rules_check(struct span rules, struct span *bad_out)
{
	struct span entry, local, domain;
	while (next_entry(&rules, &entry)) {
		domain = entry;
		bool valid = true;
		if (span_chr(entry, '@') != SPAN_NPOS) {
			addr_split(entry, &local, &domain);
			valid = local.len > 0;
		} else if (entry.ptr[0] == '.') {
			domain = span_skip(entry, 1);
		}
		if (!valid || !dnsname_valid(domain)) {
			*bad_out = entry;
			return ERR_SYNTAX;
		}
	}
	return 0;
}

bool report_rules_exclude_domain(struct span rules, struct span domain)
{
	struct span entry;
	while (next_entry(&rules, &entry)) {
		if (span_ieq(entry, domain))
			return true;
		struct span parent = span_skip(entry, 1);
		if (entry.ptr[0] == '.' && domain.len > parent.len && dnsname_under(domain, parent))
			return true;
	}
	return false;
}

bool report_rules_exclude_address(struct span rules, struct span address)
{
	struct span entry, local, domain, rest = rules;
	while (next_entry(&rest, &entry))
		if (span_chr(entry, '@') != SPAN_NPOS && span_ieq(entry, address))
			return true;
	addr_split(address, &local, &domain);
	return report_rules_exclude_domain(rules, domain);
}
