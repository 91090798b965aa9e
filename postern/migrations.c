/* The rules of forward-only migrations; names are compared bytewise. */
#include "postern/migrations.h"

#define NUMBER_LEN 3

bool migration_name_valid(struct span name)
{
	if (!span_ends(name, SPAN_LIT(".sql")) || name.len > MIGRATION_NAME_MAX)
		return false;
	struct span stem = span_take(name, name.len - 4);
	if (stem.len <= NUMBER_LEN + 1 || stem.ptr[NUMBER_LEN] != '-')
		return false;
	for (size_t i = 0; i < stem.len; i++) {
		char c = stem.ptr[i];
		if (i < NUMBER_LEN ? !ascii_isdigit(c)
				   : !(ascii_isdigit(c) || c == '-' || (c >= 'a' && c <= 'z')))
			return false;
	}
	return true;
}

int migrations_add(struct migration_list *list, struct span name, struct span checksum)
{
	if (list->count == MIGRATIONS_MAX)
		return ERR_LIMIT;
	struct migration *m = &list->items[list->count];
	if (span_copy_cstr(name, m->name, sizeof(m->name)) < 0 ||
	    span_copy_cstr(checksum, m->checksum, sizeof(m->checksum)) < 0)
		return ERR_LIMIT;
	m->applied = false;
	list->count++;
	return 0;
}

static int compare(const void *a, const void *b)
{
	return strcmp(((const struct migration *)a)->name, ((const struct migration *)b)->name);
}

void migrations_sort(struct migration_list *list)
{
	qsort(list->items, list->count, sizeof(list->items[0]), compare);
}

static struct migration *find(struct migration_list *list, const char *name)
{
	for (size_t i = 0; i < list->count; i++) {
		if (strcmp(list->items[i].name, name) == 0)
			return &list->items[i];
	}
	return NULL;
}

static int fail(struct sbuf *error, const char *name, const char *why)
{
	sbuf_addf(error, "%s %s", name, why);
	return ERR_PERM;
}

int migrations_plan(struct migration_list *files, const struct migration_list *recorded,
		    struct sbuf *error)
{
	for (size_t i = 1; i < files->count; i++) {
		if (strncmp(files->items[i - 1].name, files->items[i].name, NUMBER_LEN) == 0)
			return fail(error, files->items[i].name,
				    "has the number of another migration");
	}
	for (size_t i = 0; i < recorded->count; i++) {
		const struct migration *done = &recorded->items[i];
		struct migration *file = find(files, done->name);
		if (file == NULL)
			return fail(error, done->name,
				    "is applied but not among the files: this program is older "
				    "than the database");
		if (strcmp(file->checksum, done->checksum) != 0)
			return fail(error, done->name, "was changed after it was applied");
		file->applied = true;
	}
	bool pending = false;
	for (size_t i = 0; i < files->count; i++) {
		if (files->items[i].applied && pending)
			return fail(error, files->items[i - 1].name,
				    "is new but stands before one that is applied");
		pending = pending || !files->items[i].applied;
	}
	return 0;
}
