/*
 * Dovecot 2.3: `quota = usage:User quota` in the section plugin {}.
 *
 * init_limits() is called in front of every save; there it says "no limit", so
 * that the quota plug-in asks no further and leaves the decision to test_alloc()
 * and the reservation.  Only behind get_resource(), or where another plug-in such
 * as trash needs exact numbers, it gives the limit.
 */
#include "dovecot-plugin-quota/plugin/plugin.h"

#include "mail-user.h"
#include "mailbox-list-private.h"

struct adapter_root {
	struct usage_root usage_root;
	/* The check that was there before ours; serves other quota roots. */
	enum quota_alloc_result (*next_test_alloc)(struct quota_transaction_context *ctx,
						   uoff_t size, const char **error_r);
	/* The limits were just brought up to date by get_resource(). */
	bool fresh;
};

static struct adapter_root *adapter_root(struct usage_root *uroot)
{
	return container_of(uroot, struct adapter_root, usage_root);
}

static struct adapter_root *adapter_root_of(struct quota_root *root)
{
	return adapter_root(container_of(root, struct usage_root, root));
}

/* ---- for the common part ---- */

struct quota_root *const *adapter_roots(const struct quota *quota, unsigned int *count_r)
{
	return array_get(&quota->roots, count_r);
}

struct mail_namespace *const *adapter_namespaces(struct usage_root *uroot, unsigned int *count_r)
{
	ARRAY(struct mail_namespace *) ours;
	struct mail_namespace *ns;

	t_array_init(&ours, 4);
	array_foreach_elem(&uroot->root.quota->namespaces, ns)
	{
		if (quota_root_is_namespace_visible(&uroot->root, ns))
			array_push_back(&ours, &ns);
	}
	return array_get(&ours, count_r);
}

void adapter_rules(struct usage_root *uroot, struct mailbox *box, struct usage_rules *rules_r)
{
	const struct quota_root_settings *set = uroot->root.set;
	const char *name = mailbox_get_vname(box);

	rules_r->enforced = !uroot->root.no_enforcing;
	rules_r->counts = quota_root_is_namespace_visible(&uroot->root, box->list->ns);
	rules_r->grace_percent = set->grace_rule.bytes_percent;
	if (rules_r->grace_percent == 0 && set->grace_rule.bytes_limit > 0)
		rules_r->grace = (uint64_t)set->grace_rule.bytes_limit;

	(void)mail_namespace_find_unalias(box->storage->user->namespaces, &name);
	const struct quota_rule *rule = quota_root_rule_find(uroot->root.set, name);
	if (rule == NULL)
		return;
	rules_r->counts = rules_r->counts && !rule->ignore;
	rules_r->bytes_percent = rule->bytes_percent;
	rules_r->messages_percent = rule->count_percent;
	if (rule->bytes_percent == 0)
		rules_r->bytes = rule->bytes_limit;
	if (rule->count_percent == 0)
		rules_r->messages = rule->count_limit;
}

bool adapter_warns(const struct usage_root *uroot)
{
	return array_count(&uroot->root.set->warning_rules) > 0;
}

void adapter_warn(struct usage_root *uroot ATTR_UNUSED,
		  const struct quota_transaction_context *ctx ATTR_UNUSED)
{
	/* Dovecot sets off all of them */
}

const char *adapter_full_message(struct usage_root *uroot, struct mailbox *box ATTR_UNUSED)
{
	return uroot->root.quota->set->quota_exceeded_msg;
}

struct mail *adapter_replaced(struct mail_save_context *ctx, struct mail *source)
{
	return ctx->moving ? source : NULL;
}

bool adapter_asks_again(const struct mail_save_context *ctx, uint64_t credit)
{
	return !ctx->moving || credit == 0; /* not within a MOVE of one root */
}

void adapter_begin(struct usage_root *uroot ATTR_UNUSED)
{
	/* init_limits() is called anew for each transaction */
}

int adapter_commit(struct usage_mailbox *ubox, struct mailbox_transaction_context *t,
		   struct mail_transaction_commit_changes *changes_r)
{
	return ubox->module_ctx.super.transaction_commit(t, changes_r);
}

/* ---- the backend ---- */

static enum quota_alloc_result test_alloc(struct quota_transaction_context *ctx, uoff_t size,
					  const char **error_r);

/* Another plug-in put its check in front of ours and looks at the limits. */
static bool is_wrapped(const struct quota_root *root)
{
	return root->quota->set->test_alloc != test_alloc;
}

static enum quota_alloc_result test_alloc(struct quota_transaction_context *ctx, uoff_t size,
					  const char **error_r)
{
	struct usage_root *uroot = usage_root_find(ctx->quota);
	const enum quota_alloc_result ret =
		usage_root_test(uroot, ctx->box, size, is_wrapped(&uroot->root), error_r);

	if (ret != QUOTA_ALLOC_RESULT_OK || array_count(&ctx->quota->roots) == 1)
		return ret;
	return adapter_root(uroot)->next_test_alloc(ctx, size, error_r);
}

static struct quota_root *backend_alloc(void)
{
	struct adapter_root *aroot = i_new(struct adapter_root, 1);
	return &aroot->usage_root.root;
}

static void backend_deinit(struct quota_root *root)
{
	i_free(root);
}

static int backend_init(struct quota_root *root, const char *args, const char **error_r)
{
	struct adapter_root *aroot = adapter_root_of(root);
	struct quota_settings *set = root->quota->set;
	const char *path = mail_user_plugin_getenv(root->quota->user, "quota_usage_socket");
	const char *markers = mail_user_plugin_getenv(root->quota->user, "quota_usage_markers");
	/* "quota_rule = ?:storage=" of the userdb serves until quotad was reached. */
	const uint64_t limit = root->bytes_limit > 0 ? (uint64_t)root->bytes_limit : 0;

	event_set_append_log_prefix(root->backend.event, "quota-usage: ");
	if (usage_root_init(&aroot->usage_root, path, markers, limit, error_r) < 0)
		return -1;
	set->vsizes = TRUE;
	if (set->test_alloc != test_alloc) {
		aroot->next_test_alloc = set->test_alloc;
		set->test_alloc = test_alloc;
	}
	return quota_root_default_init(root, args, error_r);
}

static int backend_init_limits(struct quota_root *root, const char **error_r ATTR_UNUSED)
{
	struct adapter_root *aroot = adapter_root_of(root);
	const bool tell = aroot->fresh || is_wrapped(root);

	if (tell && !aroot->fresh)
		usage_lookup(&aroot->usage_root.usage);
	const struct quota_reply *state = &aroot->usage_root.usage.state;
	root->bytes_limit = tell ? (int64_t)state->limit : 0;
	root->count_limit = tell ? (int64_t)state->message_limit : 0;
	if (tell) /* rules and warnings that are a part of the limit */
		quota_root_recalculate_relative_rules(root->set, root->bytes_limit,
						      root->count_limit);
	aroot->fresh = FALSE;
	return 0;
}

static enum quota_get_result backend_get_resource(struct quota_root *root, const char *name,
						  uint64_t *value_r, const char **error_r)
{
	adapter_root_of(root)->fresh = TRUE;
	return usage_root_get(root, name, value_r, error_r);
}

const struct quota_backend adapter_backend = {
	.name = "usage",
	.v =
		{
			.alloc = backend_alloc,
			.init = backend_init,
			.deinit = backend_deinit,
			.init_limits = backend_init_limits,
			.get_resources = usage_root_resources,
			.get_resource = backend_get_resource,
			.update = usage_root_update,
		},
};
