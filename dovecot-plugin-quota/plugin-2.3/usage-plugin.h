/*
 * The adapter for Dovecot 2.3: the quota backend "usage" and the mailbox
 * functions that reserve.  Everything that does not depend on the version of
 * Dovecot is in dovecot-plugin-quota/usage.h.
 */
#ifndef USAGE_PLUGIN_H
#define USAGE_PLUGIN_H

#include "lib.h"
#include "mail-storage-private.h"
#include "quota-private.h"

#include "dovecot-plugin-quota/usage.h"

struct usage_root {
	struct quota_root root;
	struct usage usage;
	/* The check that was there before ours; serves other quota roots. */
	enum quota_alloc_result (*next_test_alloc)(struct quota_transaction_context *ctx,
						   uoff_t size, const char **error_r);
	/* A count trusts no size that is kept in an index. */
	bool thorough;
	/* The limits were just brought up to date by get_resource(). */
	bool fresh;
};

struct usage_mailbox {
	union mailbox_module_context module_ctx;
	struct usage_root *uroot;
	bool granted; /* a reservation was granted; the quota plug-in's own check follows */
	bool intent;  /* quotad knows that mails are being expunged */
};

/* The root of our backend that the mailbox's owner has, or NULL. */
struct usage_root *usage_root_of(struct mailbox *box);
/* Whether mails in the mailbox count: visible to the root and not ignored. */
bool usage_box_counts(struct usage_root *uroot, struct mailbox *box);

/* NULL where the mailbox is not under our quota. */
struct usage_mailbox *usage_mailbox_get(struct mailbox *box);
void usage_mailbox_allocated(struct mailbox *box);

/* What is in the mailboxes of the root now; -1 where that cannot be said. */
int usage_root_count(struct usage_root *uroot, uint64_t *bytes_out, uint64_t *messages_out);
/* `doveadm quota recalc`: counts the mails themselves and tells quotad.  -1
 * where they cannot be counted. */
int usage_root_recalculate(struct usage_root *uroot);

#endif
