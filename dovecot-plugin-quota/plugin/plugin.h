/*
 * The plug-in in Dovecot's processes: the quota backend "usage" and the mailbox
 * functions that reserve.  What depends on the version of Dovecot is in one file
 * a version, plugin-2.3/adapter.c and plugin-2.4/adapter.c, which give the
 * adapter_*() functions below; what does not depend on Dovecot at all is in
 * dovecot-plugin-quota/usage.h.
 */
#ifndef USAGE_PLUGIN_H
#define USAGE_PLUGIN_H

#include "lib.h"
#include "mail-storage-private.h"
#include "quota-private.h"

#include "dovecot-plugin-quota/usage.h"

#define USAGE_DEFAULT_SOCKET "/run/postern/quotad.sock"
#define USAGE_DEFAULT_MARKERS "/run/postern/quota-dirty"

struct usage_root {
	struct quota_root root;
	struct usage usage;
	/* A count trusts no size that is kept in an index. */
	bool thorough;
	/* The last one failed. */
	bool uncounted;
	/* What the next questions of Dovecot's warnings are answered with. */
	unsigned after_change;
	uint64_t bytes_after, messages_after;
};

/* What the configuration says of one mailbox. */
struct usage_rules {
	bool counts;   /* its mails count */
	bool enforced; /* and a full root refuses more */
	/* Beside the root's limit: a part of it, and a number. */
	int bytes_percent, messages_percent;
	int64_t bytes, messages;
	/* For the last message of a delivery, likewise. */
	int grace_percent;
	uint64_t grace;
};

struct usage_mailbox {
	union mailbox_module_context module_ctx;
	struct usage_root *uroot;
	bool granted; /* a reservation was granted; the quota plug-in's own check follows */
	bool intent;  /* quotad knows that mails are being expunged */
	bool has_rules;
	struct usage_rules rules;
};

/* ---- what the adapters give ---- */

/* The backend, whose roots are struct usage_root. */
extern const struct quota_backend adapter_backend;

/* All roots of a user, of any backend. */
struct quota_root *const *adapter_roots(const struct quota *quota, unsigned int *count_r);
/* The namespaces that count in the root. */
struct mail_namespace *const *adapter_namespaces(struct usage_root *uroot, unsigned int *count_r);
/* Fills RULES_R, which is zero, for a mailbox of the root's user. */
void adapter_rules(struct usage_root *uroot, struct mailbox *box, struct usage_rules *rules_r);
/* Whether warnings are configured that the usage after a change may set off. */
bool adapter_warns(const struct usage_root *uroot);
/* Sets off those that Dovecot would not; the usage is in UROOT. */
void adapter_warn(struct usage_root *uroot, const struct quota_transaction_context *ctx);
/* What a client is told when the mailbox is full. */
const char *adapter_full_message(struct usage_root *uroot, struct mailbox *box);
/* The mail that goes when the one that is copied from SOURCE is there; or NULL. */
struct mail *adapter_replaced(struct mail_save_context *ctx, struct mail *source);
/* Whether the quota plug-in asks once more after a copy that gave CREDIT. */
bool adapter_asks_again(const struct mail_save_context *ctx, uint64_t credit);
/* A transaction begins: its limits are ours to enforce. */
void adapter_begin(struct usage_root *uroot);
/* The storage's own commit. */
int adapter_commit(struct usage_mailbox *ubox, struct mailbox_transaction_context *t,
		   struct mail_transaction_commit_changes *changes_r);

/* ---- roots (root.c) ---- */

/* The root of our backend that the mailbox's owner has, or NULL. */
struct usage_root *usage_root_of(struct mailbox *box);
struct usage_root *usage_root_find(const struct quota *quota);

/* Prepares a new root whose quotad is at SOCKET, or the default (NULL), and takes
 * markers from MARKERS, likewise; LIMIT (bytes, 0: none) serves until quotad was reached. */
int usage_root_init(struct usage_root *uroot, const char *socket, const char *markers, uint64_t limit,
		    const char **error_r);
/* Whether SIZE more bytes fit into BOX.  PRECISE: ask quotad. */
enum quota_alloc_result usage_root_test(struct usage_root *uroot, struct mailbox *box, uoff_t size,
					bool precise, const char **error_r);

/* Functions of the backend. */
const char *const *usage_root_resources(struct quota_root *root);
enum quota_get_result usage_root_get(struct quota_root *root, const char *name, uint64_t *value_r,
				     const char **error_r);
int usage_root_update(struct quota_root *root, struct quota_transaction_context *ctx,
		      const char **error_r);

/* ---- mailboxes (mailbox.c) ---- */

/* NULL where the mailbox is not under our quota. */
struct usage_mailbox *usage_mailbox_get(struct mailbox *box);
/* Never NULL; nothing counts in a mailbox that is not under our quota. */
const struct usage_rules *usage_rules_of(struct mailbox *box);
/* What they give by the limits of now. */
struct usage_allowance usage_allowance_of(struct mailbox *box);
void usage_mailbox_allocated(struct mailbox *box);

/* ---- counting (count.c) ---- */

/* What is in the mailboxes of the root now; ERR_TEMP or ERR_PERM where that cannot be said. */
int usage_root_count(struct usage_root *uroot, uint64_t *bytes_out, uint64_t *messages_out);
/* `doveadm quota recalc`: counts the mails themselves and tells quotad.  -1
 * where they cannot be counted. */
int usage_root_recalculate(struct usage_root *uroot);

/* ---- files (maildir.c) ---- */

/* Virtual size and number of the mails that lie in the Maildir at PATH, without a
 * look at any index; -1 where it cannot be read. */
int usage_maildir_sizes(const char *path, uint64_t *bytes_out, uint64_t *messages_out);

#endif
