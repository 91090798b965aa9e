/*
 * Life cycle of the plug-in and the quota backend "usage".
 *
 * The backend never gives an internal error: after one, Dovecot would save the
 * mail and never call update().  init_limits() is called in front of every
 * save; there it says "no limit", so that the quota plug-in asks no further and
 * leaves the decision to usage_test_alloc() and the reservation.  Only behind
 * get_resource(), or where another plug-in such as trash needs exact numbers,
 * it gives the limit.
 */
#include "usage-plugin.h"

#include "mail-storage-hooks.h"
#include "mail-user.h"
#include "mailbox-list-private.h"
#include "module-dir.h"

#define DEFAULT_SOCKET "/run/postern/quotad.sock"
/* Mails of at least this size are checked before they are received. */
#define CHECK_FIRST_BYTES (256 * 1024)

/* The names that Dovecot derives from the file, lib11_quota_usage_plugin.so. */
#define EXPORT __attribute__((visibility("default")))
extern const char *quota_usage_plugin_version;
extern const char *quota_usage_plugin_dependencies[];
void quota_usage_plugin_init(struct module *module);
void quota_usage_plugin_deinit(void);

EXPORT const char *quota_usage_plugin_version = DOVECOT_ABI_VERSION;
EXPORT const char *quota_usage_plugin_dependencies[] = {"quota", NULL};

/* One connection for the whole process. */
static struct quota_client client = {.fd = -1};

static struct usage_root *usage_root(struct quota_root *root)
{
	return container_of(root, struct usage_root, root);
}

static bool is_ours(const struct quota_root *root)
{
	return strcmp(root->backend.name, "usage") == 0;
}

static struct usage_root *find_root(struct quota *quota)
{
	struct quota_root *root;
	array_foreach_elem(&quota->roots, root)
	{
		if (is_ours(root))
			return usage_root(root);
	}
	return NULL;
}

struct usage_root *usage_root_of(struct mailbox *box)
{
	struct mail_namespace *ns = box->list->ns;
	struct quota *quota = quota_get_mail_user_quota(ns->owner != NULL ? ns->owner : ns->user);
	return quota == NULL ? NULL : find_root(quota);
}

bool usage_box_counts(struct usage_root *uroot, struct mailbox *box)
{
	const char *name = mailbox_get_vname(box);

	if ((box->storage->class_flags & MAIL_STORAGE_CLASS_FLAG_NOQUOTA) != 0 ||
	    !quota_root_is_namespace_visible(&uroot->root, box->list->ns))
		return FALSE;
	(void)mail_namespace_find_unalias(box->storage->user->namespaces, &name);
	const struct quota_rule *rule = quota_root_rule_find(uroot->root.set, name);
	return rule == NULL || !rule->ignore;
}

static int count_root(void *arg, uint64_t *bytes_out, uint64_t *messages_out)
{
	int ret;

	T_BEGIN
	{
		ret = usage_root_count(arg, bytes_out, messages_out);
	}
	T_END;
	return ret;
}

/* Another plug-in put its check in front of ours and looks at the limits. */
static bool is_wrapped(struct usage_root *uroot);

static enum quota_alloc_result usage_test_alloc(struct quota_transaction_context *ctx, uoff_t size,
						const char **error_r)
{
	struct usage_root *uroot = find_root(ctx->quota);
	struct usage_mailbox *ubox = usage_mailbox_get(ctx->box);
	const bool granted = ubox != NULL && ubox->granted;
	enum usage_verdict verdict = USAGE_OK;

	if (ubox != NULL)
		ubox->granted = FALSE;
	if (!granted && !ctx->box->storage->user->dsyncing && usage_box_counts(uroot, ctx->box)) {
		const bool precise = size == 0 || size >= CHECK_FIRST_BYTES || is_wrapped(uroot);
		verdict = usage_check(&uroot->usage, size, precise);
	}
	if (verdict != USAGE_OK) {
		*error_r = t_strdup_printf("Allocating %" PRIuUOFF_T " bytes would exceed quota",
					   size);
		return verdict == USAGE_BIG ? QUOTA_ALLOC_RESULT_OVER_QUOTA_LIMIT
					    : QUOTA_ALLOC_RESULT_OVER_QUOTA;
	}
	if (array_count(&ctx->quota->roots) == 1)
		return QUOTA_ALLOC_RESULT_OK;
	return uroot->next_test_alloc(ctx, size, error_r);
}

static bool is_wrapped(struct usage_root *uroot)
{
	return uroot->root.quota->set->test_alloc != usage_test_alloc;
}

static struct quota_root *usage_alloc(void)
{
	struct usage_root *uroot = i_new(struct usage_root, 1);
	return &uroot->root;
}

/* All users of a process share the connection unless their settings differ. */
static int use_socket(const char *path, const char **error_r)
{
	if (strcmp(client.path, path) == 0)
		return 0;
	quota_client_done(&client);
	if (quota_client_init(&client, path) == 0)
		return 0;
	*error_r = t_strdup_printf("quota_usage_socket is too long: %s", path);
	return -1;
}

static int usage_init(struct quota_root *root, const char *args, const char **error_r)
{
	struct usage_root *uroot = usage_root(root);
	struct quota_settings *set = root->quota->set;
	struct mail_user *user = root->quota->user;
	const char *path = mail_user_plugin_getenv(user, "quota_usage_socket");

	event_set_append_log_prefix(root->backend.event, "quota-usage: ");
	if (use_socket(path != NULL ? path : DEFAULT_SOCKET, error_r) < 0)
		return -1;
	set->vsizes = TRUE;
	if (set->test_alloc != usage_test_alloc) {
		uroot->next_test_alloc = set->test_alloc;
		set->test_alloc = usage_test_alloc;
	}
	uroot->usage = (struct usage){
		.client = &client,
		.user = user->username,
		.count = count_root,
		.arg = uroot,
		/* "quota_rule = ?:storage=" of the userdb serves until quotad was reached. */
		.state = {.limit = root->bytes_limit > 0 ? (uint64_t)root->bytes_limit : 0},
	};
	return quota_root_default_init(root, args, error_r);
}

static void usage_deinit(struct quota_root *root)
{
	i_free(root);
}

static int usage_init_limits(struct quota_root *root, const char **error_r ATTR_UNUSED)
{
	struct usage_root *uroot = usage_root(root);

	if (!uroot->fresh && is_wrapped(uroot))
		usage_lookup(&uroot->usage);
	const bool tell = uroot->fresh || is_wrapped(uroot);
	root->bytes_limit = tell ? (int64_t)uroot->usage.state.limit : 0;
	root->count_limit = 0;
	uroot->fresh = FALSE;
	return 0;
}

static const char *const *usage_get_resources(struct quota_root *root ATTR_UNUSED)
{
	static const char *const resources[] = {QUOTA_NAME_STORAGE_KILOBYTES, QUOTA_NAME_MESSAGES,
						NULL};
	return resources;
}

static enum quota_get_result usage_get_resource(struct quota_root *root, const char *name,
						uint64_t *value_r, const char **error_r)
{
	struct usage_root *uroot = usage_root(root);

	if (strcmp(name, QUOTA_NAME_STORAGE_BYTES) != 0 && strcmp(name, QUOTA_NAME_MESSAGES) != 0) {
		*error_r = QUOTA_UNKNOWN_RESOURCE_ERROR_STRING;
		return QUOTA_GET_RESULT_UNKNOWN_RESOURCE;
	}
	usage_lookup(&uroot->usage);
	uroot->fresh = TRUE;
	*value_r = strcmp(name, QUOTA_NAME_MESSAGES) == 0 ? uroot->usage.state.messages
							  : uroot->usage.state.used;
	return QUOTA_GET_RESULT_LIMITED;
}

/*
 * Runs after the storage's commit or sync.  What was saved is already counted
 * by the mailbox's transaction; what was expunged is told here.
 */
static int usage_update(struct quota_root *root, struct quota_transaction_context *ctx,
			const char **error_r)
{
	struct usage_root *uroot = usage_root(root);
	struct usage_mailbox *ubox = ctx->box == NULL ? NULL : usage_mailbox_get(ctx->box);

	if (ubox != NULL)
		ubox->intent = FALSE;
	if (ctx->recalculate == QUOTA_RECALCULATE_FORCED) {
		if (usage_root_recalculate(uroot) == 0)
			return 0;
		*error_r = "The mailbox could not be recounted";
		return -1;
	}
	if (ctx->recalculate == QUOTA_RECALCULATE_MISSING_FREES) {
		if (usage_recount(&uroot->usage) < 0)
			usage_stale(&uroot->usage);
		return 0;
	}
	if (ctx->count_used < 0)
		usage_freed(&uroot->usage, ctx->bytes_used < 0 ? (uint64_t)-ctx->bytes_used : 0,
			    (uint64_t)-ctx->count_used);
	usage_settle(&uroot->usage);
	return 0;
}

static struct quota_backend usage_backend = {
	.name = "usage",
	.v =
		{
			.alloc = usage_alloc,
			.init = usage_init,
			.deinit = usage_deinit,
			.init_limits = usage_init_limits,
			.get_resources = usage_get_resources,
			.get_resource = usage_get_resource,
			.update = usage_update,
		},
};

static struct mail_storage_hooks usage_hooks = {
	.mailbox_allocated = usage_mailbox_allocated,
};

EXPORT void quota_usage_plugin_init(struct module *module)
{
	quota_backend_register(&usage_backend);
	mail_storage_hooks_add(module, &usage_hooks);
}

EXPORT void quota_usage_plugin_deinit(void)
{
	mail_storage_hooks_remove(&usage_hooks);
	quota_backend_unregister(&usage_backend);
	quota_client_done(&client);
}
