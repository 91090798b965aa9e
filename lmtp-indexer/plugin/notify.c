/*
 * Tells the indexer whose mail has changed, at the commit of each transaction (of a MOVE also before)
 * and after each change of a mailbox.  Which mails, and how, the indexer finds
 * out by comparing: so a hint is small, and losing one costs time only, or makes
 * two of a MOVE that is looked at in its midst.
 *
 * A delivery that the indexer itself has handed to Dovecot is not told: the
 * indexer knows.  Nothing here waits, allocates beyond the transaction, or
 * makes an operation fail.
 */
#include "lmtp-indexer/plugin/adapter.h"
#include "lmtp-indexer/plugin/sender.h"
#include "lmtp-indexer/ulid.h"

#define DEFAULT_SOCKET "/run/postern/lmtp-indexer.hints.sock"
#define DEFAULT_MARKERS "/run/postern/index-dirty"

/* The names that Dovecot derives from the file, lib20_postern_notify_plugin.so. */
#define EXPORT __attribute__((visibility("default")))
extern const char *postern_notify_plugin_version;
extern const char *postern_notify_plugin_dependencies[];
void postern_notify_plugin_init(struct module *module);
void postern_notify_plugin_deinit(void);

EXPORT const char *postern_notify_plugin_version = DOVECOT_ABI_VERSION;
EXPORT const char *postern_notify_plugin_dependencies[] = {"notify", NULL};

struct transaction {
	struct mailbox *box;
	unsigned kinds;
	bool moves;    /* mails here, which was told */
	bool is_moved; /* from here, of which that was told */
};

static struct sender sender = {.fd = -1};
static struct notify_context *context;
static bool complained;
/* MOVE copies each mail, and then expunges it; but all copies are committed before all expunges. */
static const struct mail *copied;
static struct transaction *copied_to;

/* Our own LMTP sessions are ULIDs; Dovecot adds ":Tn" and ":Rn". */
static bool is_own_delivery(const struct mail_user *user)
{
	return strcmp(user->service, "lmtp") == 0 && user->session_id != NULL &&
	       ulid_valid(span_of(user->session_id, strcspn(user->session_id, ":")));
}

static const char *setting_or(struct mail_user *user, const char *setting, const char *variable, const char *otherwise)
{
	const char *value = adapter_setting(user, setting, variable);
	return value != NULL && *value != '\0' ? value : otherwise;
}

static const char *owner_of(struct mailbox *box)
{
	const struct mail_namespace *ns = mailbox_get_namespace(box);
	return ns->owner != NULL ? ns->owner->username : box->storage->user->username;
}

static void tell(struct mailbox *box, unsigned kinds)
{
	struct mail_user *user = box->storage->user;
	struct hint hint = {.kinds = kinds, .user = span_str(owner_of(box))};

	/* "raw" is where lmtp keeps a mail that is still coming in. */
	if (kinds == 0 || strcmp(box->storage->name, "raw") == 0 || is_own_delivery(user))
		return;
	const char *path = setting_or(user, "postern_notify_socket", "POSTERN_NOTIFY_SOCKET", DEFAULT_SOCKET);
	const char *markers = setting_or(user, "postern_notify_markers", "POSTERN_NOTIFY_MARKERS", DEFAULT_MARKERS);
	if (sender_send(&sender, path, markers, &hint) == 0) {
		complained = FALSE;
	} else if (!complained) {
		i_warning("postern-notify: the indexer is not told of a change, and %s takes no marker: %m", markers);
		complained = TRUE;
	}
}

static void *transaction_begin(struct mailbox_transaction_context *t)
{
	struct transaction *tr = i_new(struct transaction, 1);
	tr->box = t->box; /* T itself is gone at the commit */
	return tr;
}

static void on_save(void *txn, struct mail *mail ATTR_UNUSED)
{
	struct transaction *tr = txn;
	tr->kinds |= HINT_SAVE;
}

static void on_copy(void *txn, struct mail *src, struct mail *dst ATTR_UNUSED)
{
	struct transaction *tr = txn;
	tr->kinds |= HINT_COPY;
	copied = src;
	copied_to = tr;
}

static void on_expunge(void *txn, struct mail *mail)
{
	struct transaction *tr = txn;
	tr->kinds |= HINT_EXPUNGE;
	/* The expunge of somebody else's mail is told of that user.  Before the copies can be seen: else they might be
	 * looked at before it is known what they are. */
	if (mail == copied && strcmp(owner_of(mail->box), owner_of(copied_to->box)) == 0) {
		if (!copied_to->moves)
			tell(copied_to->box, HINT_MOVE);
		copied_to->moves = tr->is_moved = TRUE;
	}
	copied = NULL;
}

static void transaction_end(struct transaction *tr)
{
	if (copied_to == tr)
		copied = NULL;
	i_free(tr);
}

static void on_flags(void *txn, struct mail *mail ATTR_UNUSED, enum mail_flags old ATTR_UNUSED)
{
	struct transaction *tr = txn;
	tr->kinds |= HINT_FLAGS;
}

static void on_keywords(void *txn, struct mail *mail ATTR_UNUSED, const char *const *old ATTR_UNUSED)
{
	struct transaction *tr = txn;
	tr->kinds |= HINT_FLAGS;
}

static void on_commit(void *txn, struct mail_transaction_commit_changes *changes ATTR_UNUSED)
{
	struct transaction *tr = txn;
	/* The copies of a MOVE may have taken long: its time begins anew. */
	tell(tr->box, tr->kinds | (tr->moves ? HINT_MOVE : 0));
	transaction_end(tr);
}

static void on_rollback(void *txn)
{
	struct transaction *tr = txn;
	if (tr->is_moved)
		tell(tr->box, HINT_EXPUNGE); /* the end of what was told, whether the copies are there or not */
	transaction_end(tr);
}

static void on_create(struct mailbox *box)
{
	tell(box, HINT_CREATE);
}

static void on_update(struct mailbox *box)
{
	tell(box, HINT_RENAME);
}

static void *delete_begin(struct mailbox *box ATTR_UNUSED)
{
	return NULL;
}

static void on_delete(void *txn ATTR_UNUSED, struct mailbox *box)
{
	tell(box, HINT_DELETE);
}

static void delete_rollback(void *txn ATTR_UNUSED)
{
}

static void on_rename(struct mailbox *src, struct mailbox *dest ATTR_UNUSED)
{
	tell(src, HINT_RENAME);
}

static const struct notify_vfuncs vfuncs = {
	.mail_transaction_begin = transaction_begin,
	.mail_save = on_save,
	.mail_copy = on_copy,
	.mail_expunge = on_expunge,
	.mail_update_flags = on_flags,
	.mail_update_keywords = on_keywords,
	.mail_transaction_commit = on_commit,
	.mail_transaction_rollback = on_rollback,
	.mailbox_create = on_create,
	.mailbox_update = on_update,
	.mailbox_delete_begin = delete_begin,
	.mailbox_delete_commit = on_delete,
	.mailbox_delete_rollback = delete_rollback,
	.mailbox_rename = on_rename,
};

EXPORT void postern_notify_plugin_init(struct module *module ATTR_UNUSED)
{
	context = notify_register(&vfuncs);
}

EXPORT void postern_notify_plugin_deinit(void)
{
	adapter_unregister(&context);
	sender_done(&sender);
}
