/*
 * The mailbox functions.  This module is loaded behind the quota plug-in, so
 * these run inside its wrappers, next to the storage: a reservation is made
 * when the exact size is known, and committed only after the storage has.
 *
 * A transaction in which a save was refused is rolled back even if the caller
 * commits it (doveadm copy does).
 */
#include "dovecot-plugin-quota/plugin/plugin.h"

#include "mail-index-private.h"
#include "mail-index-transaction-private.h"
#include "mail-user.h"
#include "mailbox-list-iter.h"
#include "mailbox-list-private.h"

#define DOUBT_MESSAGE "Quota: the mailbox is being counted, try again later"

struct usage_transaction {
	union mailbox_transaction_module_context module_ctx;
	struct usage_save save;
};

static MODULE_CONTEXT_DEFINE_INIT(usage_storage_module, &mail_storage_module_register);
#define USAGE_CONTEXT(obj) MODULE_CONTEXT(obj, usage_storage_module)

/* Never NULL in the functions below: only mailboxes with a context have them. */
struct usage_mailbox *usage_mailbox_get(struct mailbox *box)
{
	return USAGE_CONTEXT(box);
}

const struct usage_rules *usage_rules_of(struct mailbox *box)
{
	static const struct usage_rules none;
	struct usage_mailbox *ubox = usage_mailbox_get(box);

	if (ubox == NULL)
		return &none;
	if (!ubox->has_rules) {
		adapter_rules(ubox->uroot, box, &ubox->rules);
		ubox->has_rules = TRUE;
	}
	return &ubox->rules;
}

static int64_t part_of(uint64_t limit, int percent)
{
	return (int64_t)(limit / 100) * percent + (int64_t)(limit % 100) * percent / 100;
}

struct usage_allowance usage_allowance_of(struct mailbox *box)
{
	const struct usage_rules *r = usage_rules_of(box);
	struct usage_allowance a = {.bytes = r->bytes, .messages = r->messages, .grace = r->grace};

	if (r->bytes_percent != 0 || r->messages_percent != 0 || r->grace_percent != 0) {
		struct usage *usage = &usage_mailbox_get(box)->uroot->usage;
		usage_know(usage);
		a.bytes += part_of(usage->state.limit, r->bytes_percent);
		a.messages += part_of(usage->state.message_limit, r->messages_percent);
		a.grace += (uint64_t)part_of(usage->state.limit, r->grace_percent);
	}
	/* Only a delivery may take the last message over the limit. */
	if ((box->flags & MAILBOX_FLAG_POST_SESSION) == 0)
		a.grace = 0;
	return a;
}

static struct mailbox_transaction_context *usage_transaction_begin(
	struct mailbox *box, enum mailbox_transaction_flags flags, const char *reason)
{
	struct usage_mailbox *ubox = usage_mailbox_get(box);
	struct mailbox_transaction_context *t =
		ubox->module_ctx.super.transaction_begin(box, flags, reason);
	struct usage_transaction *ut = i_new(struct usage_transaction, 1);

	adapter_begin(ubox->uroot);
	MODULE_CONTEXT_SET(t, usage_storage_module, ut);
	return t;
}

/*
 * Dovecot's COPY shows the text of an error that it has held over the commit of the transaction that it read from,
 * within which Dovecot frees it (2.3: the client was sent what came to lie there).  So the text itself is
 * put aside, and put back where the storage still says the same.
 */
static char *error_aside(struct mail_storage *storage)
{
	char *text = storage->error_string;

	storage->error_string = i_strdup(text);
	return text;
}

static void error_back(struct mail_storage *storage, char *text)
{
	if (null_strcmp(storage->error_string, text) == 0) {
		char *copy = storage->error_string;
		storage->error_string = text;
		text = copy;
	}
	i_free(text);
}

static void usage_transaction_rollback(struct mailbox_transaction_context *t)
{
	struct usage_mailbox *ubox = usage_mailbox_get(t->box);
	struct usage_transaction *ut = USAGE_CONTEXT(t);

	ubox->granted = FALSE;
	ubox->module_ctx.super.transaction_rollback(t);
	usage_release(&ubox->uroot->usage, &ut->save);
	i_free(ut);
}

/*
 * In doubt a delivery is tried again later; with any other error than this Sieve would put the mail in another
 * mailbox instead. To who waits for an answer the other one says more.
 */
static void set_refusal(struct usage_mailbox *ubox, struct mailbox *box, enum usage_verdict verdict)
{
	const bool delivers = (box->flags & MAILBOX_FLAG_POST_SESSION) != 0;

	if (verdict == USAGE_DOUBT)
		mail_storage_set_error(box->storage, delivers ? MAIL_ERROR_TEMP : MAIL_ERROR_INUSE,
				       DOUBT_MESSAGE);
	else
		mail_storage_set_error(box->storage, MAIL_ERROR_NOQUOTA,
				       adapter_full_message(ubox->uroot, box));
}

static int usage_transaction_commit(struct mailbox_transaction_context *t,
				    struct mail_transaction_commit_changes *changes_r)
{
	struct mailbox *box = t->box;
	struct usage_mailbox *ubox = usage_mailbox_get(box);
	struct usage_transaction *ut = USAGE_CONTEXT(t);
	char *text = error_aside(box->storage);
	int ret = -1;

	ubox->granted = FALSE;
	if (ut->save.refusal != USAGE_OK) {
		ubox->module_ctx.super.transaction_rollback(t);
		set_refusal(ubox, box, ut->save.refusal);
	} else {
		ret = adapter_commit(ubox, t, changes_r);
	}
	error_back(box->storage, text);
	if (ret < 0)
		usage_release(&ubox->uroot->usage, &ut->save);
	else
		usage_commit(&ubox->uroot->usage, &ut->save);
	i_free(ut);
	return ret;
}

/* The space that a MOVE will free, if its source counts in the same root. */
static uint64_t credit_of(struct usage_mailbox *ubox, struct mail *source, const char **key_r)
{
	struct mailbox_metadata metadata;
	uoff_t size;

	*key_r = "";
	if (source == NULL || usage_root_of(source->box) != ubox->uroot ||
	    !usage_rules_of(source->box)->counts ||
	    mail_get_virtual_size(source, &size) < 0 ||
	    mailbox_get_metadata(source->box, MAILBOX_METADATA_GUID, &metadata) < 0)
		return 0;
	*key_r = t_strdup_printf("%s:%u", guid_128_to_string(metadata.guid), source->uid);
	return size;
}

static int reserve(struct mail_save_context *ctx, struct mail *replaced)
{
	struct mailbox *box = ctx->transaction->box;
	struct usage_mailbox *ubox = usage_mailbox_get(box);
	struct usage_transaction *ut = USAGE_CONTEXT(ctx->transaction);
	const struct usage_rules *rules = usage_rules_of(box);
	struct usage_mail mail = {.force = box->storage->user->dsyncing || !rules->enforced};
	uoff_t size;

	if (!rules->counts)
		return 0;
	if (mail_get_virtual_size(ctx->dest_mail, &size) < 0) {
		usage_unsized(&ut->save); /* e.g. the source of a copy is gone: it will fail */
		return 0;
	}
	mail.bytes = size;
	mail.credit = credit_of(ubox, replaced, &mail.key);
	mail.allowance = usage_allowance_of(box);
	if (usage_reserve(&ubox->uroot->usage, &ut->save, &mail) != USAGE_OK) {
		set_refusal(ubox, box, ut->save.refusal);
		return -1;
	}
	ubox->granted = adapter_asks_again(ctx, mail.credit);
	return 0;
}

static int usage_save_begin(struct mail_save_context *ctx, struct istream *input)
{
	struct usage_mailbox *ubox = usage_mailbox_get(ctx->transaction->box);

	ubox->granted = FALSE;
	return ubox->module_ctx.super.save_begin(ctx, input);
}

static int usage_save_finish(struct mail_save_context *ctx)
{
	struct usage_mailbox *ubox = usage_mailbox_get(ctx->transaction->box);
	int ret;

	if (ubox->module_ctx.super.save_finish(ctx) < 0)
		return -1;
	T_BEGIN
	{
		ret = reserve(ctx, adapter_replaced(ctx, ctx->copy_src_mail));
	}
	T_END;
	return ret;
}

static int usage_copy(struct mail_save_context *ctx, struct mail *mail)
{
	struct usage_mailbox *ubox = usage_mailbox_get(ctx->transaction->box);
	int ret;

	ubox->granted = FALSE;
	if (ubox->module_ctx.super.copy(ctx, mail) < 0)
		return -1;
	if (ctx->copying_via_save)
		return 0; /* save_finish() has reserved */
	T_BEGIN
	{
		ret = reserve(ctx, adapter_replaced(ctx, mail));
	}
	T_END;
	return ret;
}

/*
 * Where sizes are kept in the index, each new mail's goes there: two of the eight records that a
 * delivery appends to the index's log, which all others read.  A Maildir has it in the name of the file.
 */
static void drop_sizes(const struct mailbox *box, struct mail_index_transaction *t)
{
	ARRAY_TYPE(seq_array) * records;

	if (strcmp(box->storage->name, "maildir") != 0 || !array_is_created(&t->ext_rec_updates) ||
	    box->mail_vsize_ext_id >= array_count(&t->ext_rec_updates))
		return;
	records = array_idx_modifiable(&t->ext_rec_updates, box->mail_vsize_ext_id);
	if (array_is_created(records))
		array_free(records);
}

/*
 * Dovecot writes a change of an extension even where every record of it was taken
 * back, and so takes locks that parallel deliveries wait for.
 */
static void drop_empty_updates(struct mail_index_transaction *t)
{
	ARRAY_TYPE(seq_array) * records;

	if (!array_is_created(&t->ext_rec_updates) || array_is_created(&t->ext_rec_atomics) ||
	    array_is_created(&t->ext_hdr_updates) || array_is_created(&t->ext_resizes) ||
	    array_is_created(&t->ext_resets))
		return;
	array_foreach_modifiable(&t->ext_rec_updates, records)
	{
		if (array_is_created(records) && array_count(records) > 0)
			return;
	}
	array_foreach_modifiable(&t->ext_rec_updates, records)
	{
		if (array_is_created(records))
			array_free(records);
	}
	t->log_ext_updates = FALSE;
}

/* While another session has the list of UIDs, a Maildir takes a mail without a word in its index. */
static int usage_save_commit_pre(struct mail_save_context *ctx)
{
	struct mailbox_transaction_context *t = ctx->transaction;
	struct usage_mailbox *ubox = usage_mailbox_get(t->box);

	if (ubox->module_ctx.super.transaction_save_commit_pre(ctx) < 0)
		return -1;
	drop_sizes(t->box, t->itrans);
	drop_empty_updates(t->itrans);
	return 0;
}

/* Called before the storage writes down what it expunged. */
static void usage_sync_notify(struct mailbox *box, uint32_t uid, enum mailbox_sync_type sync_type)
{
	struct usage_mailbox *ubox = usage_mailbox_get(box);

	if (sync_type == MAILBOX_SYNC_TYPE_EXPUNGE && !ubox->intent &&
	    (box->flags & MAILBOX_FLAG_DELETE_UNSAFE) == 0 && usage_rules_of(box)->counts) {
		ubox->intent = TRUE;
		usage_intent(&ubox->uroot->usage);
	}
	if (ubox->module_ctx.super.sync_notify != NULL)
		ubox->module_ctx.super.sync_notify(box, uid, sync_type);
}

/* Whole mailboxes come and go without a word from the quota plug-in. */
static void recount_after(struct usage_root *uroot)
{
	if (usage_recount(&uroot->usage) < 0)
		usage_stale(&uroot->usage);
}

static bool name_counts(struct mailbox_list *list, const char *vname)
{
	struct mailbox *box = mailbox_alloc(list, vname, 0);
	const bool counts = usage_rules_of(box)->counts;

	mailbox_free(&box);
	return counts;
}

/* Whether a mailbox below, which went with it, counts where it did not, or the other way round. */
static bool children_differ(struct mailbox *src, struct mailbox *dest)
{
	const char separator[] = {mail_namespace_get_sep(dest->list->ns), '\0'};
	const char *old_stem = t_strconcat(mailbox_get_vname(src), separator, NULL);
	const char *stem = t_strconcat(mailbox_get_vname(dest), separator, NULL);
	const struct mailbox_info *info;
	bool differ = FALSE;
	struct mailbox_list_iterate_context *iter = mailbox_list_iter_init(
		dest->list, "*", MAILBOX_LIST_ITER_SKIP_ALIASES | MAILBOX_LIST_ITER_RETURN_NO_FLAGS);

	while (!differ && (info = mailbox_list_iter_next(iter)) != NULL) {
		if (strncmp(info->vname, stem, strlen(stem)) != 0)
			continue;
		const char *old = t_strconcat(old_stem, info->vname + strlen(stem), NULL);
		differ = name_counts(src->list, old) != name_counts(dest->list, info->vname);
	}
	return mailbox_list_iter_deinit(&iter) < 0 || differ;
}

static int usage_rename_box(struct mailbox *src, struct mailbox *dest)
{
	struct usage_mailbox *ubox = usage_mailbox_get(src);
	struct usage_root *from = ubox->uroot, *to = usage_root_of(dest);
	const bool left = usage_rules_of(src)->counts;
	const bool came = to != NULL && usage_rules_of(dest)->counts;
	bool differ = from != to || left != came;

	if (ubox->module_ctx.super.rename_box(src, dest) < 0)
		return -1;
	T_BEGIN
	{
		differ = differ || children_differ(src, dest);
	}
	T_END;
	if (!differ)
		return 0;
	recount_after(from);
	if (to != NULL && to != from)
		recount_after(to);
	return 0;
}

static int usage_delete_box(struct mailbox *box)
{
	struct usage_mailbox *ubox = usage_mailbox_get(box);
	struct usage_root *uroot = ubox->uroot;
	const bool unsafe = (box->flags & MAILBOX_FLAG_DELETE_UNSAFE) != 0;

	if (ubox->module_ctx.super.delete_box(box) < 0)
		return -1;
	if (unsafe)
		recount_after(uroot);
	return 0;
}

void usage_mailbox_allocated(struct mailbox *box)
{
	struct usage_root *uroot = usage_root_of(box);
	struct mailbox_vfuncs *v = box->vlast;

	if (uroot == NULL || (box->storage->class_flags & MAIL_STORAGE_CLASS_FLAG_NOQUOTA) != 0)
		return;
	struct usage_mailbox *ubox = p_new(box->pool, struct usage_mailbox, 1);
	ubox->module_ctx.super = *v;
	ubox->uroot = uroot;
	box->vlast = &ubox->module_ctx.super;
	v->transaction_begin = usage_transaction_begin;
	v->transaction_commit = usage_transaction_commit;
	v->transaction_rollback = usage_transaction_rollback;
	v->transaction_save_commit_pre = usage_save_commit_pre;
	v->save_begin = usage_save_begin;
	v->save_finish = usage_save_finish;
	v->copy = usage_copy;
	v->sync_notify = usage_sync_notify;
	v->rename_box = usage_rename_box;
	v->delete_box = usage_delete_box;
	MODULE_CONTEXT_SET(box, usage_storage_module, ubox);
}
