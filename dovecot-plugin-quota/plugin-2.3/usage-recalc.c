/*
 * `doveadm quota recalc`: every mailbox is synchronised with its files and its
 * stored size is thrown away, so that the count that follows rests on the
 * mails themselves.  A mailbox that cannot be opened for good (ACL) is left out,
 * as Dovecot's own count does.
 */
#include "usage-plugin.h"

#include <poll.h>

#include "mailbox-list-iter.h"

#define TRIES 25
#define TRY_AGAIN_MS 20

/* Makes the next look at the mailbox's size compute it anew. */
static int forget_size(struct mailbox *box)
{
	const struct mailbox_index_vsize none = {0};
	struct mail_index_transaction *trans =
		mail_index_transaction_begin(box->view, MAIL_INDEX_TRANSACTION_FLAG_EXTERNAL);

	mail_index_update_header_ext(trans, box->vsize_hdr_ext_id, 0, &none, sizeof(none));
	return mail_index_transaction_commit(&trans);
}

static int refresh_box(struct mailbox *box)
{
	struct mailbox_metadata metadata;

	if (mailbox_open(box) < 0 || mailbox_sync(box, MAILBOX_SYNC_FLAG_FULL_READ) < 0)
		return mailbox_get_last_mail_error(box) == MAIL_ERROR_TEMP ? -1 : 0;
	if (forget_size(box) < 0 ||
	    mailbox_get_metadata(box, MAILBOX_METADATA_VIRTUAL_SIZE, &metadata) < 0)
		return -1;
	/* Also carries the new size over into the list's index. */
	return mailbox_sync(box, MAILBOX_SYNC_FLAG_FAST);
}

static int refresh_namespace(struct usage_root *uroot, struct mail_namespace *ns)
{
	const struct mailbox_info *info;
	int ret = 0;
	struct mailbox_list_iterate_context *iter = mailbox_list_iter_init(
		ns->list, "*", MAILBOX_LIST_ITER_SKIP_ALIASES | MAILBOX_LIST_ITER_RETURN_NO_FLAGS |
				       MAILBOX_LIST_ITER_NO_AUTO_BOXES);

	while ((info = mailbox_list_iter_next(iter)) != NULL) {
		if ((info->flags & (MAILBOX_NONEXISTENT | MAILBOX_NOSELECT)) != 0)
			continue;
		struct mailbox *box = mailbox_alloc(ns->list, info->vname, 0);
		if (usage_box_counts(uroot, box) && refresh_box(box) < 0)
			ret = -1;
		mailbox_free(&box);
	}
	return mailbox_list_iter_deinit(&iter) < 0 ? -1 : ret;
}

int usage_root_recalculate(struct usage_root *uroot)
{
	struct mail_namespace *ns;
	int ret = 0, rc = ERR_AGAIN;

	if (uroot->usage.counting)
		return 0;
	uroot->usage.counting = true; /* what the synchronising finds is counted below */
	array_foreach_elem(&uroot->root.quota->namespaces, ns) {
		if (refresh_namespace(uroot, ns) < 0)
			ret = -1;
	}
	uroot->usage.counting = false;
	for (int i = 0; i < TRIES && rc == ERR_AGAIN; i++) {
		if (i > 0)
			(void)poll(NULL, 0, TRY_AGAIN_MS); /* others are saving right now */
		rc = usage_recount(&uroot->usage);
	}
	if (rc < 0)
		usage_stale(&uroot->usage);
	return ret;
}
