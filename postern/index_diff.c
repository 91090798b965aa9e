/*
 * Both lists are merged by place.  What is left on one side only is paired once
 * more by the mail GUID: a mail whose row lies in another folder is one
 * difference, not two.
 */
#include "postern/index_diff.h"

struct left {
	const struct index_mail **items;
	size_t count;
};

const char *index_difference_name(enum index_difference kind)
{
	static const char *const names[] = {"missing", "extra", "wrong_folder", "wrong_flags", "unplaced", "pending"};
	return names[kind];
}

static int compare_numbers(uint32_t a, uint32_t b)
{
	return a < b ? -1 : a > b;
}

static int by_place(const void *a, const void *b)
{
	const struct index_mail *x = a, *y = b;
	int difference = span_cmp(x->box_guid, y->box_guid);
	if (difference == 0)
		difference = compare_numbers(x->uid_validity, y->uid_validity);
	return difference != 0 ? difference : compare_numbers(x->uid, y->uid);
}

static int by_guid(const void *a, const void *b)
{
	const struct index_mail *const *x = a, *const *y = b;
	return memcmp((*x)->guid, (*y)->guid, INDEX_DIFF_GUID_LEN);
}

static void sort(void *items, size_t count, size_t size, int (*compare)(const void *, const void *))
{
	if (count > 0)
		qsort(items, count, size, compare);
}

static void compare_pair(const struct index_mail *mail, const struct index_mail *row, index_diff_fn *fn, void *arg)
{
	if (!span_eq(mail->box_name, row->box_name))
		fn(arg, INDEX_WRONG_FOLDER, mail, row);
	if (!span_eq(mail->flags, row->flags))
		fn(arg, INDEX_WRONG_FLAGS, mail, row);
	if (row->pending)
		fn(arg, INDEX_PENDING, mail, row);
}

/* A row whose mail GUID is not known pairs with nothing. */
static void pair_by_guid(struct left *missing, struct left *extra, index_diff_fn *fn, void *arg)
{
	size_t i = 0, j = 0;
	sort(missing->items, missing->count, sizeof(void *), by_guid);
	sort(extra->items, extra->count, sizeof(void *), by_guid);
	while (i < missing->count || j < extra->count) {
		int order = i == missing->count	 ? 1
			    : j == extra->count ? -1
						: by_guid(&missing->items[i], &extra->items[j]);
		if (order == 0 && extra->items[j]->has_guid)
			fn(arg, INDEX_WRONG_FOLDER, missing->items[i++], extra->items[j++]);
		else if (order < 0)
			fn(arg, INDEX_MISSING, missing->items[i++], NULL);
		else
			fn(arg, INDEX_EXTRA, NULL, extra->items[j++]);
	}
}

void index_diff(struct index_mail *mails, size_t mail_count, struct index_mail *rows, size_t row_count,
		index_diff_fn *fn, void *arg)
{
	struct left missing = {.count = 0}, extra = {.count = 0};
	size_t i = 0, j = 0;
	missing.items = mem_alloc((mail_count + 1) * sizeof(struct index_mail *));
	extra.items = mem_alloc((row_count + 1) * sizeof(struct index_mail *));
	sort(mails, mail_count, sizeof(*mails), by_place);
	sort(rows, row_count, sizeof(*rows), by_place);
	for (; j < row_count && rows[j].box_guid.len == 0; j++)
		fn(arg, INDEX_UNPLACED, NULL, &rows[j]);
	while (i < mail_count || j < row_count) {
		int order = i == mail_count ? 1 : j == row_count ? -1 : by_place(&mails[i], &rows[j]);
		if (order == 0)
			compare_pair(&mails[i++], &rows[j++], fn, arg);
		else if (order < 0)
			missing.items[missing.count++] = &mails[i++];
		else
			extra.items[extra.count++] = &rows[j++];
	}
	pair_by_guid(&missing, &extra, fn, arg);
	free(missing.items);
	free(extra.items);
}
