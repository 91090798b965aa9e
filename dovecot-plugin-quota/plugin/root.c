/*
 * The roots of the quota backend "usage", and the life of the plug-in.
 *
 * The backend never gives an internal error: after one, Dovecot would save the
 * mail and never call update().
 */
#include "dovecot-plugin-quota/plugin/plugin.h"

#include "mail-storage-hooks.h"
#include "mail-user.h"
#include "mailbox-list-private.h"
#include "module-dir.h"

/* Mails of at least this size are checked before they are received. */
#define CHECK_FIRST_BYTES (256 * 1024)

/* The names that Dovecot derives from the file, lib11_quota_usage_plugin.so. */
#define EXPORT __attribute__((visibility("default")))
extern const char *quota_usage_plugin_version;
extern const char *quota_usage_plugin_dependencies[];
void quota_usage_plugin_init(struct module *module);
void quota_usage_plugin_deinit(void);

/* Dovecot refuses a plug-in that was built for another version of it. */
EXPORT const char *quota_usage_plugin_version = DOVECOT_ABI_VERSION;
EXPORT const char *quota_usage_plugin_dependencies[] = {"quota", NULL};

/* One connection for the whole process. */
static struct quota_client client = {.fd = -1, .channel = -1};

struct usage_root *usage_root_find(const struct quota *quota)
{
	unsigned int count;
	struct quota_root *const *roots = adapter_roots(quota, &count);

	for (unsigned int i = 0; i < count; i++)
		if (strcmp(roots[i]->backend.name, adapter_backend.name) == 0)
			return container_of(roots[i], struct usage_root, root);
	return NULL;
}

struct usage_root *usage_root_of(struct mailbox *box)
{
	struct mail_namespace *ns = box->list->ns;
	struct quota *quota = quota_get_mail_user_quota(ns->owner != NULL ? ns->owner : ns->user);
	return quota == NULL ? NULL : usage_root_find(quota);
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

/* All users of a process share the connection unless their settings differ. */
static int use_socket(const char *path, const char *markers, const char **error_r)
{
	if (strcmp(client.path, path) == 0 && strcmp(client.marker_dir, markers) == 0)
		return 0;
	quota_client_done(&client);
	if (quota_client_init(&client, path, markers) == 0)
		return 0;
	*error_r = t_strdup_printf("the path of quotad's socket or of its markers is too long: %s, %s", path, markers);
	return -1;
}

int usage_root_init(struct usage_root *uroot, const char *socket, const char *markers, uint64_t limit,
		    const char **error_r)
{
	if (use_socket(socket != NULL ? socket : USAGE_DEFAULT_SOCKET,
		       markers != NULL ? markers : USAGE_DEFAULT_MARKERS, error_r) < 0)
		return -1;
	uroot->usage = (struct usage){
		.client = &client,
		.user = uroot->root.quota->user->username,
		.count = count_root,
		.arg = uroot,
		.state = {.limit = limit},
	};
	return 0;
}

enum quota_alloc_result usage_root_test(struct usage_root *uroot, struct mailbox *box, uoff_t size,
					bool precise, const char **error_r)
{
	struct usage_mailbox *ubox = usage_mailbox_get(box);
	const struct usage_rules *rules = usage_rules_of(box);
	const bool granted = ubox != NULL && ubox->granted;

	if (ubox != NULL)
		ubox->granted = FALSE;
	if (granted || box->storage->user->dsyncing || !rules->counts || !rules->enforced)
		return QUOTA_ALLOC_RESULT_OK;
	precise = precise || size == 0 || size >= CHECK_FIRST_BYTES;
	const struct usage_allowance allowance = usage_allowance_of(box);
	const enum usage_verdict verdict = usage_check(&uroot->usage, size, &allowance, precise);
	if (verdict == USAGE_OK)
		return QUOTA_ALLOC_RESULT_OK;
	*error_r = t_strdup_printf("Allocating %" PRIuUOFF_T " bytes would exceed quota", size);
	return verdict == USAGE_BIG ? QUOTA_ALLOC_RESULT_OVER_QUOTA_LIMIT
				    : QUOTA_ALLOC_RESULT_OVER_QUOTA;
}

const char *const *usage_root_resources(struct quota_root *root ATTR_UNUSED)
{
	static const char *const resources[] = {QUOTA_NAME_STORAGE_KILOBYTES, QUOTA_NAME_MESSAGES,
						NULL};
	return resources;
}

enum quota_get_result usage_root_get(struct quota_root *root, const char *name, uint64_t *value_r,
				     const char **error_r)
{
	struct usage_root *uroot = container_of(root, struct usage_root, root);

	if (strcmp(name, QUOTA_NAME_STORAGE_BYTES) != 0 && strcmp(name, QUOTA_NAME_MESSAGES) != 0) {
		*error_r = QUOTA_UNKNOWN_RESOURCE_ERROR_STRING;
		return QUOTA_GET_RESULT_UNKNOWN_RESOURCE;
	}
	const bool messages = strcmp(name, QUOTA_NAME_MESSAGES) == 0;
	if (uroot->after_change > 0) {
		uroot->after_change--;
		*value_r = messages ? uroot->messages_after : uroot->bytes_after;
		return QUOTA_GET_RESULT_LIMITED;
	}
	usage_lookup(&uroot->usage);
	*value_r = messages ? uroot->usage.state.messages : uroot->usage.state.used;
	return QUOTA_GET_RESULT_LIMITED;
}

/*
 * Warnings compare the usage after a change with that before it.  To set off
 * each crossing once, however many processes change the mailbox at a time, the
 * two are those of quotad's order of changes: Dovecot asks for bytes and
 * messages right after update().
 */
static void prepare_warnings(struct usage_root *uroot, const struct quota_transaction_context *ctx)
{
	uroot->after_change = 0;
	if (ctx->sync_transaction || !adapter_warns(uroot))
		return;
	usage_after_change(&uroot->usage, &uroot->bytes_after, &uroot->messages_after);
	adapter_warn(uroot, ctx);
	uroot->after_change = 2;
}

/*
 * Runs after the storage's commit or sync.  What was saved is already counted
 * by the mailbox's transaction; what was expunged is told here.
 */
int usage_root_update(struct quota_root *root, struct quota_transaction_context *ctx,
		      const char **error_r)
{
	struct usage_root *uroot = container_of(root, struct usage_root, root);
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
	prepare_warnings(uroot, ctx);
	usage_settle(&uroot->usage);
	return 0;
}

static struct mail_storage_hooks usage_hooks = {
	.mailbox_allocated = usage_mailbox_allocated,
};

EXPORT void quota_usage_plugin_init(struct module *module)
{
	quota_backend_register(&adapter_backend);
	mail_storage_hooks_add(module, &usage_hooks);
}

EXPORT void quota_usage_plugin_deinit(void)
{
	mail_storage_hooks_remove(&usage_hooks);
	quota_backend_unregister(&adapter_backend);
	quota_client_done(&client);
}
