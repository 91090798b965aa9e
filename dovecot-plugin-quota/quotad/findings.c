/* A ring of users; looking one up walks it, which is rare. */
#include "dovecot-plugin-quota/quotad/findings.h"

#include "lib/base/num.h"

struct findings {
	struct finding *slots[FINDINGS_USERS];
	size_t next;
};

struct findings *findings_new(void)
{
	return mem_zalloc(sizeof(struct findings));
}

void findings_free(struct findings **findings)
{
	struct findings *f = *findings;
	if (f == NULL)
		return;
	for (size_t i = 0; i < FINDINGS_USERS; i++)
		free(f->slots[i]);
	free(f);
	*findings = NULL;
}

struct finding *findings_get(const struct findings *f, struct span user)
{
	for (size_t i = 0; i < FINDINGS_USERS; i++)
		if (f->slots[i] != NULL && span_ieq(span_str(f->slots[i]->user), user))
			return f->slots[i];
	return NULL;
}

struct finding *findings_open(struct findings *f, struct span user, bool fixes)
{
	struct finding *finding = findings_get(f, user);
	if (finding == NULL) {
		free(f->slots[f->next]);
		finding = f->slots[f->next] = mem_alloc(sizeof(*finding));
		f->next = (f->next + 1) % FINDINGS_USERS;
	}
	*finding = (struct finding){.fixes = fixes};
	if (span_copy_cstr(user, finding->user, sizeof(finding->user)) < 0)
		PANIC("a name is over the cap of the protocol");
	return finding;
}

void finding_begin(struct finding *finding, struct finding_sizes before)
{
	if (!finding->begun)
		finding->before = before;
	finding->begun = true;
}

static bool same(struct finding_sizes a, struct finding_sizes b)
{
	return a.bytes == b.bytes && a.messages == b.messages;
}

void finding_add(struct finding *finding, struct span folder, struct finding_sizes indexed,
		 struct finding_sizes found)
{
	size_t kept = finding->folder_count < FINDINGS_FOLDERS ? finding->folder_count : FINDINGS_FOLDERS;
	for (size_t i = 0; i < kept; i++)
		if (span_eq(span_str(finding->folders[i].name), folder))
			return;
	finding->folder_count++;
	if (kept == FINDINGS_FOLDERS)
		return;
	struct finding_folder *f = &finding->folders[kept];
	f->indexed = indexed;
	f->found = found;
	if (span_copy_cstr(folder, f->name, sizeof(f->name)) < 0)
		PANIC("a name is over the cap of the protocol");
}

void finding_end(struct finding *finding, struct finding_sizes found)
{
	finding->found = found;
	finding->done = true;
}

const char *finding_folder_cause(const struct finding_folder *f)
{
	if (f->found.messages < f->indexed.messages)
		return "files_removed";
	return f->found.messages > f->indexed.messages ? "files_added" : "sizes_changed";
}

const char *finding_cause(const struct finding *finding)
{
	if (finding->folder_count > 0)
		return finding_folder_cause(&finding->folders[0]);
	return same(finding->before, finding->found) ? NULL : "counter";
}
