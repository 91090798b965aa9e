/*
 * Dovecot 2.4: `quota "User quota" { driver = usage }`.
 *
 * The quota plug-in takes a root's limits from its struct whenever it looks, and
 * asks for the usage where there is one.  In front of a save they are therefore
 * set to "no limit", so that it asks no further and leaves the decision to
 * test_alloc() and the reservation; get_resource() sets them for those who want
 * to see them.  quota_storage_size of the root must stay unset: it would win.
 *
 * Settings of a plug-in would need a module in the configuration process, so what
 * little there is comes another way: the socket from the environment
 * (import_environment), the limit until quotad was reached from a userdb field.
 */
#include "dovecot-plugin-quota/plugin/plugin.h"

#include <stdlib.h>

#include "mail-user.h"
#include "mailbox-list-private.h"
#include "program-client.h"
#include "quota-settings.h"
#include "settings.h"

#include "lib/base/num.h"

#define SOCKET_VARIABLE "POSTERN_QUOTAD_SOCKET"
#define MARKERS_VARIABLE "POSTERN_QUOTAD_MARKERS"
#define LIMIT_FIELD "postern_quota_mb"
#define MEGABYTE (UINT64_C(1) << 20)

struct adapter_root {
	struct usage_root usage_root;
	/* The check that was there before ours; serves other quota roots. */
	enum quota_alloc_result (*next_test_alloc)(struct quota_transaction_context *ctx,
						   uoff_t size, struct mailbox *expunged_box,
						   uoff_t expunged_size,
						   const struct quota_overrun **overruns_r,
						   const char **error_r);
};

static struct adapter_root *adapter_root_of(struct quota_root *root)
{
	struct usage_root *uroot = container_of(root, struct usage_root, root);
	return container_of(uroot, struct adapter_root, usage_root);
}

/* ---- for the common part ---- */

struct quota_root *const *adapter_roots(const struct quota *quota, unsigned int *count_r)
{
	return array_get(&quota->all_roots, count_r);
}

struct mail_namespace *const *adapter_namespaces(struct usage_root *uroot, unsigned int *count_r)
{
	return array_get(&uroot->root.namespaces, count_r);
}

static int64_t signed_of(uint64_t n)
{
	return n < INT64_MAX ? (int64_t)n : INT64_MAX;
}

void adapter_rules(struct usage_root *uroot, struct mailbox *box, struct usage_rules *rules_r)
{
	const struct quota_root_settings *set;
	const char *error;

	rules_r->counts = quota_root_is_visible(&uroot->root, box);
	rules_r->enforced = TRUE;
	if (settings_get_filter(box->event, "quota", uroot->root.set_filter_name,
				&quota_root_setting_parser_info, 0, &set, &error) < 0) {
		e_error(box->event, "%s", error);
		return;
	}
	rules_r->counts = rules_r->counts && !set->quota_ignore;
	rules_r->enforced = set->quota_enforce;
	rules_r->bytes_percent = (int)set->quota_storage_percentage - 100;
	rules_r->bytes = signed_of(set->quota_storage_extra);
	rules_r->messages_percent = (int)set->quota_message_percentage - 100;
	rules_r->grace = set->quota_storage_grace;
	settings_free(set);
}

bool adapter_warns(const struct usage_root *uroot)
{
	return !array_is_empty(&uroot->root.set->quota_warnings);
}

static void run_warning(struct usage_root *uroot, const char *name)
{
	struct event *event = event_create(uroot->root.backend.event);
	struct program_client_parameters params = {
		.client_connect_timeout_msecs = 1000,
		.no_reply = TRUE,
	};
	struct program_client *program;
	const char *error;

	event_set_ptr(event, SETTINGS_EVENT_FILTER_NAME,
		      p_strdup_printf(event_get_pool(event), "quota_warning/%s", name));
	event_set_append_log_prefix(event, t_strdup_printf("quota_warning %s: ", name));
	if (program_client_create_auto(event, &params, &program, &error) <= 0) {
		e_error(event, "%s", error);
	} else {
		(void)program_client_run(program);
		program_client_destroy(&program);
	}
	event_unref(&event);
}

/* Whether a change from BEFORE to AFTER passes the threshold. */
static bool crosses(const struct quota_root_settings *set, uint64_t before, uint64_t after,
		    uint64_t threshold)
{
	const bool over = strcmp(set->quota_warning_threshold, QUOTA_WARNING_THRESHOLD_OVER) == 0;

	return over ? before < threshold && after >= threshold
		    : after < threshold && before >= threshold;
}

static uint64_t before(uint64_t after, int64_t change)
{
	return change > 0 && after < (uint64_t)change ? 0 : after - (uint64_t)change;
}

/* Whether the warning is set off by a threshold that is a part of our limit. */
static bool warning_matches(const struct usage_root *uroot,
			    const struct quota_transaction_context *ctx,
			    const struct quota_root_settings *set)
{
	const struct quota_reply *state = &uroot->usage.state;
	const bool messages =
		strcmp(set->quota_warning_resource, QUOTA_WARNING_RESOURCE_MESSAGE) == 0;
	const uint64_t own = messages ? set->quota_message_count : set->quota_storage_size;
	const uint64_t limit = messages ? state->message_limit : state->limit;
	const unsigned percent = messages ? set->quota_message_percentage
					  : set->quota_storage_percentage;
	const uint64_t after = messages ? uroot->messages_after : uroot->bytes_after;
	const int64_t change = messages ? ctx->count_used : ctx->bytes_used;

	return own == 0 && limit != 0 &&
	       crosses(set, before(after, change), after, limit / 100 * percent +
		       limit % 100 * percent / 100);
}

/*
 * Dovecot compares with quota_storage_size only, which we leave unset, not with
 * the limit of the root.  As there, the first warning that matches is the one.
 */
void adapter_warn(struct usage_root *uroot, const struct quota_transaction_context *ctx)
{
	const struct quota_root_settings *set;
	const char *name, *error;
	bool matches = FALSE;

	array_foreach_elem(&uroot->root.set->quota_warnings, name)
	{
		if (matches)
			return;
		if (settings_get_filter(uroot->root.backend.event, "quota_warning", name,
					&quota_root_setting_parser_info, 0, &set, &error) < 0) {
			e_error(uroot->root.backend.event, "%s", error);
			return;
		}
		matches = warning_matches(uroot, ctx, set);
		settings_free(set);
		if (matches)
			run_warning(uroot, name);
	}
}

const char *adapter_full_message(struct usage_root *uroot ATTR_UNUSED, struct mailbox *box)
{
	const struct quota_settings *set;
	const char *error, *message = "Quota exceeded (mailbox for user is full)";

	if (settings_get(box->event, &quota_setting_parser_info, 0, &set, &error) < 0) {
		e_error(box->event, "%s", error);
		return message;
	}
	message = t_strdup(set->quota_exceeded_message);
	settings_free(set);
	return message;
}

struct mail *adapter_replaced(struct mail_save_context *ctx, struct mail *source)
{
	return ctx->moving ? source : ctx->expunged_mail;
}

bool adapter_asks_again(const struct mail_save_context *ctx ATTR_UNUSED,
			uint64_t credit ATTR_UNUSED)
{
	return TRUE;
}

void adapter_begin(struct usage_root *uroot)
{
	uroot->root.bytes_limit = uroot->root.count_limit = 0;
}

/*
 * COPY of 2.4 keeps the text of the error that refused the destination over the
 * commit of the source, which would free it; so a commit of nothing leaves it.
 */
int adapter_commit(struct usage_mailbox *ubox, struct mailbox_transaction_context *t,
		   struct mail_transaction_commit_changes *changes_r)
{
	struct mail_storage *storage = t->box->storage;
	char *text = storage->error_string;
	const enum mail_error error = storage->error;

	if (text == NULL || t->save_count > 0)
		return ubox->module_ctx.super.transaction_commit(t, changes_r);
	storage->error_string = NULL;
	storage->error = MAIL_ERROR_NONE;
	const int ret = ubox->module_ctx.super.transaction_commit(t, changes_r);
	if (ret < 0) {
		i_free(text);
		return ret;
	}
	i_free(storage->error_string);
	storage->error_string = text;
	storage->error = error;
	return ret;
}

/* ---- the backend ---- */

/* By how much the root is over, for plug-ins that make room. */
static const struct quota_overrun *overrun_of(struct usage_root *uroot, uint64_t need)
{
	struct quota_overrun *overrun = t_new(struct quota_overrun, 2); /* one, and the end */
	const struct quota_reply *state = &uroot->usage.state;

	overrun->root = &uroot->root;
	overrun->resource.bytes = need > state->room ? need - state->room : 0;
	overrun->resource.count = state->message_room == 0 ? 1 : 0;
	return overrun;
}

static enum quota_alloc_result test_alloc(struct quota_transaction_context *ctx, uoff_t size,
					  struct mailbox *expunged_box, uoff_t expunged_size,
					  const struct quota_overrun **overruns_r,
					  const char **error_r)
{
	struct usage_root *uroot = usage_root_find(ctx->quota);
	const bool frees = expunged_box != NULL && usage_rules_of(expunged_box)->counts;
	const bool wrapped = ctx->quota->test_alloc != test_alloc;
	enum quota_alloc_result ret = QUOTA_ALLOC_RESULT_OK;

	if (overruns_r != NULL)
		*overruns_r = NULL;
	if (!frees || expunged_size < size)
		ret = usage_root_test(uroot, ctx->box, frees ? size - expunged_size : size, wrapped,
				      error_r);
	if (ret == QUOTA_ALLOC_RESULT_OVER_QUOTA && overruns_r != NULL)
		*overruns_r = overrun_of(uroot, frees ? size - expunged_size : size);
	/* The default check knows of other roots, and of a limit of one mailbox. */
	if (ret != QUOTA_ALLOC_RESULT_OK ||
	    (array_count(&ctx->quota->all_roots) == 1 &&
	     ctx->set->quota_mailbox_message_count == SET_UINT_UNLIMITED))
		return ret;
	return adapter_root_of(&uroot->root)
		->next_test_alloc(ctx, size, expunged_box, expunged_size, overruns_r, error_r);
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

static uint64_t limit_of_userdb(const struct mail_user *user)
{
	const char *const *field = user->userdb_fields;
	const char *value;
	uint64_t megabytes;

	for (; field != NULL && *field != NULL; field++)
		if (str_begins(*field, LIMIT_FIELD "=", &value))
			return num_parse_u64(span_str(value), INT64_MAX / MEGABYTE, &megabytes) < 0
				       ? 0
				       : megabytes * MEGABYTE;
	return 0;
}

static int backend_init(struct quota_root *root, const char **error_r)
{
	struct adapter_root *aroot = adapter_root_of(root);
	struct quota *quota = root->quota;
	const char *path = getenv(SOCKET_VARIABLE), *markers = getenv(MARKERS_VARIABLE);
	const uint64_t limit = limit_of_userdb(quota->user);

	if (usage_root_init(&aroot->usage_root, path, markers, limit, error_r) < 0)
		return -1;
	if (quota->test_alloc != test_alloc) {
		aroot->next_test_alloc = quota->test_alloc;
		quota->test_alloc = test_alloc;
	}
	root->bytes_limit = (int64_t)limit;
	return 0;
}

static enum quota_get_result backend_get_resource(struct quota_root *root, const char *name,
						  uint64_t *value_r, const char **error_r)
{
	const enum quota_get_result ret = usage_root_get(root, name, value_r, error_r);

	const struct quota_reply *state = &adapter_root_of(root)->usage_root.usage.state;
	root->bytes_limit = (int64_t)state->limit;
	root->count_limit = (int64_t)state->message_limit;
	return ret;
}

const struct quota_backend adapter_backend = {
	.name = "usage",
	.use_vsize = TRUE,
	.v =
		{
			.alloc = backend_alloc,
			.init = backend_init,
			.deinit = backend_deinit,
			.get_resources = usage_root_resources,
			.get_resource = backend_get_resource,
			.update = usage_root_update,
		},
};
