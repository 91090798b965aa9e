/*
 * Counts what is in the mailboxes of a root.  Dovecot's own quota_count() may
 * answer from the list's index, which lags behind parallel deliveries, so each
 * mailbox is opened and synchronised: then its index knows every message that
 * was committed before.  A mailbox that cannot be opened for good (ACL, just
 * deleted) is left out; any other failure is one of the count, and taken for one that may pass.
 */
#include "dovecot-plugin-quota/plugin/plugin.h"

#include <poll.h>

#include "mailbox-list-iter.h"

#define RECALC_TRIES 25
#define RECALC_WAIT_MS 20

struct sum {
	uint64_t bytes, messages;
};

static bool is_for_good(enum mail_error error)
{
	return error == MAIL_ERROR_NOTFOUND || error == MAIL_ERROR_PERM || error == MAIL_ERROR_NOTPOSSIBLE ||
	       error == MAIL_ERROR_PARAMS;
}

/* What a failure at the mailbox means for the whole count. */
static int failed(struct mailbox *box)
{
	return is_for_good(mailbox_get_last_mail_error(box)) ? 0 : ERR_TEMP;
}

/* Makes the size that is kept in the index to be computed anew. */
static int forget_size(struct mailbox *box)
{
	const struct mailbox_index_vsize none = {0};
	struct mail_index_transaction *trans = mail_index_transaction_begin(
		box->view, MAIL_INDEX_TRANSACTION_FLAG_EXTERNAL);

	mail_index_update_header_ext(trans, box->vsize_hdr_ext_id, 0, &none, sizeof(none));
	return mail_index_transaction_commit(&trans);
}

/* What the index says, before anything brings it up to date; false where it does
 * not say it of all mails. */
static bool read_index(struct mailbox *box, struct sum *sum)
{
	const struct mailbox_index_vsize *vsize;
	const void *data;
	size_t size;

	sum->messages = mail_index_get_header(box->view)->messages_count;
	mail_index_get_header_ext(box->view, box->vsize_hdr_ext_id, &data, &size);
	vsize = data;
	if (size != sizeof(*vsize) || vsize->message_count != sum->messages)
		return FALSE;
	sum->bytes = vsize->vsize;
	return TRUE;
}

/* Compares the index with the files and tells of a difference; FOUND_R is what to
 * go by while nothing may be changed. */
static void examine(struct usage_root *uroot, struct mailbox *box, struct sum *found_r)
{
	struct sum indexed = {0, 0};
	const char *path;
	const bool sized = read_index(box, &indexed);

	*found_r = indexed;
	if (strcmp(box->storage->name, "maildir") != 0 ||
	    mailbox_get_path_to(box, MAILBOX_LIST_PATH_TYPE_MAILBOX, &path) <= 0 ||
	    usage_maildir_sizes(path, &found_r->bytes, &found_r->messages) < 0)
		return;
	if (!sized)
		indexed.bytes = found_r->bytes;
	if (indexed.bytes == found_r->bytes && indexed.messages == found_r->messages)
		return;
	const struct usage_folder folder = {mailbox_get_vname(box), indexed.bytes, indexed.messages,
					    found_r->bytes, found_r->messages};
	usage_folder_differs(&uroot->usage, &folder);
}

static int add_box(struct usage_root *uroot, struct mailbox *box, struct sum *sum)
{
	const bool thorough = uroot->thorough;
	struct mailbox_metadata metadata;
	struct mailbox_status status;
	struct sum found;

	if ((thorough || uroot->usage.examining) && mailbox_open(box) == 0) {
		examine(uroot, box, &found);
		if (uroot->usage.examining) {
			sum->bytes += found.bytes;
			sum->messages += found.messages;
			return 0;
		}
	}
	if (mailbox_open(box) < 0 ||
	    mailbox_sync(box, thorough ? MAILBOX_SYNC_FLAG_FULL_READ : 0) < 0)
		return failed(box);
	if (thorough && forget_size(box) < 0)
		return ERR_TEMP;
	if (mailbox_get_metadata(box, MAILBOX_METADATA_VIRTUAL_SIZE, &metadata) < 0 ||
	    mailbox_get_status(box, STATUS_MESSAGES, &status) < 0)
		return failed(box);
	sum->bytes += metadata.virtual_size;
	sum->messages += status.messages;
	return 0;
}

static int add_mailbox(struct usage_root *uroot, struct mail_namespace *ns, const char *vname,
		       struct sum *sum)
{
	struct mailbox *box = mailbox_alloc(ns->list, vname, 0);
	int ret = 0;

	if (usage_rules_of(box)->counts)
		ret = add_box(uroot, box, sum);
	mailbox_free(&box);
	return ret;
}

static int add_namespace(struct usage_root *uroot, struct mail_namespace *ns, struct sum *sum)
{
	const struct mailbox_info *info;
	int ret = 0;
	struct mailbox_list_iterate_context *iter = mailbox_list_iter_init(
		ns->list, "*",
		MAILBOX_LIST_ITER_SKIP_ALIASES | MAILBOX_LIST_ITER_RETURN_NO_FLAGS |
			MAILBOX_LIST_ITER_NO_AUTO_BOXES);

	while (ret == 0 && (info = mailbox_list_iter_next(iter)) != NULL) {
		if ((info->flags & (MAILBOX_NONEXISTENT | MAILBOX_NOSELECT)) == 0)
			ret = add_mailbox(uroot, ns, info->vname, sum);
	}
	if (mailbox_list_iter_deinit(&iter) < 0 && ret == 0)
		ret = is_for_good(mailbox_list_get_last_mail_error(ns->list)) ? ERR_PERM : ERR_TEMP;
	return ret;
}

int usage_root_count(struct usage_root *uroot, uint64_t *bytes_out, uint64_t *messages_out)
{
	unsigned int count;
	struct mail_namespace *const *namespaces = adapter_namespaces(uroot, &count);
	struct sum sum = {0, 0};
	int ret = 0;

	for (unsigned int i = 0; i < count && ret == 0; i++)
		ret = add_namespace(uroot, namespaces[i], &sum);
	uroot->uncounted = ret < 0;
	if (ret < 0)
		return ret;
	*bytes_out = sum.bytes;
	*messages_out = sum.messages;
	return 0;
}

int usage_root_recalculate(struct usage_root *uroot)
{
	int rc = ERR_AGAIN;

	if (uroot->usage.counting)
		return 0;
	uroot->thorough = TRUE;
	uroot->uncounted = FALSE;
	for (int i = 0; i < RECALC_TRIES && rc == ERR_AGAIN; i++) {
		if (i > 0)
			(void)poll(NULL, 0, RECALC_WAIT_MS); /* others are saving right now */
		rc = usage_recount(&uroot->usage);
	}
	uroot->thorough = FALSE;
	if (rc < 0)
		usage_stale(&uroot->usage);
	return uroot->uncounted ? -1 : 0;
}
