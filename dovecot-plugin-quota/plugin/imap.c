/*
 * What imap_quota of Dovecot lacks: SETQUOTA for administrators, written to the
 * database by quotad, and what RFC 9208 adds (STATUS: status.c).  An administrator is who
 * has the userdb field admin; "user@domain:User quota" names another's root.
 * A login is told to quotad, which has users counted whose usage may be wrong.
 *
 * Loaded behind imap_quota, whose SETQUOTA crashes (2.3) or always refuses (2.4).
 * It shares no symbol with the quota plug-in, only its roots.
 */
#include "dovecot-plugin-quota/plugin/plugin.h"
#include "dovecot-plugin-quota/plugin/status.h"

#include "imap-common.h"

#include "imap-commands.h"
#include "imap-quote.h"
#include "mail-user.h"
#include "module-dir.h"
#include "quota-plugin.h"
#include "str.h"

#define EXPORT __attribute__((visibility("default")))
extern const char *imap_quota_usage_plugin_version;
extern const char *imap_quota_usage_plugin_dependencies[];
extern const char imap_quota_usage_plugin_binary_dependency[];
void imap_quota_usage_plugin_init(struct module *module);
void imap_quota_usage_plugin_deinit(void);

EXPORT const char *imap_quota_usage_plugin_version = DOVECOT_ABI_VERSION;
EXPORT const char *imap_quota_usage_plugin_dependencies[] = {"quota_usage", "imap_quota", NULL};
EXPORT const char imap_quota_usage_plugin_binary_dependency[] = "imap";

#define KILOBYTE UINT64_C(1024)
#define MEGABYTE (KILOBYTE * 1024)

static struct module *imap_module;
static imap_client_created_func_t *next_client_created;

struct limits {
	uint64_t storage_kb, messages; /* 0: none */
};

/* Reads (RESOURCE n ...); NULL, or what is wrong with it. */
static const char *read_limits(const struct imap_arg *list, struct limits *limits_r)
{
	const char *name, *text;
	uint64_t value;

	i_zero(limits_r);
	for (; !IMAP_ARG_IS_EOL(list); list += 2) {
		if (!imap_arg_get_atom(&list[0], &name) || !imap_arg_get_atom(&list[1], &text) ||
		    str_to_uint64(text, &value) < 0)
			return "Invalid arguments.";
		const bool storage = strcasecmp(name, QUOTA_NAME_STORAGE_KILOBYTES) == 0;
		if (!storage && strcasecmp(name, QUOTA_NAME_MESSAGES) != 0)
			return "NO Only STORAGE and MESSAGE can be limited.";
		if (value == 0 || value > (storage ? QUOTA_SIZE_MAX / KILOBYTE : INT32_MAX))
			return "NO This limit is out of range.";
		*(storage ? &limits_r->storage_kb : &limits_r->messages) = value;
	}
	return NULL;
}

/*
 * The quotad that serves USER, and whose root NAME is: the user's own, or that
 * of whoever stands in front of the colon.  NULL where there is no such root.
 */
static struct quota_client *find_root(struct mail_user *user, const char *name, const char **owner_r)
{
	struct quota_root_iter *iter;
	struct quota_root *root;
	struct quota_client *client = NULL;
	const char *colon = strchr(name, ':');

	iter = quota_root_iter_init_user(user);
	while (client == NULL && (root = quota_root_iter_next(iter)) != NULL) {
		const char *own = quota_root_get_name(root);
		const bool mine = strcmp(own, name) == 0;
		const bool others = colon != NULL && strcmp(own, colon + 1) == 0;
		if (strcmp(root->backend.name, "usage") != 0 || (!mine && !others))
			continue;
		struct usage_root *uroot = container_of(root, struct usage_root, root);
		client = uroot->usage.client;
		*owner_r = mine ? user->username : t_strdup_until(name, colon);
	}
	quota_root_iter_deinit(&iter);
	return client;
}

static void send_quota(struct client *client, const char *name, const struct quota_reply *state)
{
	string_t *str = t_str_new(128);
	const char *between = "";

	str_append(str, "* QUOTA ");
	imap_append_astring(str, name);
	str_append(str, " (");
	if (state->limit != 0) {
		str_printfa(str, "%s %" PRIu64 " %" PRIu64, QUOTA_NAME_STORAGE_KILOBYTES,
			    (state->used + KILOBYTE - 1) / KILOBYTE, state->limit / KILOBYTE);
		between = " ";
	}
	if (state->message_limit != 0)
		str_printfa(str, "%s%s %" PRIu64 " %" PRIu64, between, QUOTA_NAME_MESSAGES,
			    state->messages, state->message_limit);
	str_append_c(str, ')');
	client_send_line(client, str_c(str));
}

static const char *set_quota(struct client *client, const char *name, const struct limits *limits)
{
	const char *owner;
	struct quota_reply state;
	struct quota_client *quotad = find_root(client->user, name, &owner);
	/* The database counts in megabytes. */
	const uint64_t bytes = (limits->storage_kb + KILOBYTE - 1) / KILOBYTE * MEGABYTE;

	if (quotad == NULL)
		return "NO Quota root doesn't exist.";
	const int rc = usage_set_limits(quotad, owner, bytes, limits->messages, &state);
	if (rc == ERR_NOT_FOUND)
		return "NO No such user.";
	if (rc < 0)
		return "NO [UNAVAILABLE] The quota cannot be changed now.";
	e_info(client->user->event, "SETQUOTA of %s: %" PRIu64 " bytes, %" PRIu64 " messages",
	       owner, state.limit, state.message_limit);
	send_quota(client, name, &state);
	return "OK Setquota completed.";
}

static bool cmd_setquota(struct client_command_context *cmd)
{
	const struct imap_arg *args, *list;
	struct limits limits;
	const char *name;

	if (!client_read_args(cmd, 2, 0, &args))
		return FALSE;
	if (!imap_arg_get_astring(&args[0], &name) || !imap_arg_get_list(&args[1], &list)) {
		client_send_command_error(cmd, "Invalid arguments.");
		return TRUE;
	}
	const char *wrong = read_limits(list, &limits);
	if (!cmd->client->user->admin)
		client_send_tagline(cmd, "NO [NOPERM] Only administrators may set a quota.");
	else if (wrong == NULL)
		client_send_tagline(cmd, set_quota(cmd->client, name, &limits));
	else if (strncmp(wrong, "NO ", 3) == 0)
		client_send_tagline(cmd, wrong);
	else
		client_send_command_error(cmd, wrong);
	return TRUE;
}

static void tell_login(struct mail_user *user)
{
	struct quota_root_iter *iter = quota_root_iter_init_user(user);
	struct quota_root *root;

	while ((root = quota_root_iter_next(iter)) != NULL) {
		if (strcmp(root->backend.name, "usage") != 0)
			continue;
		const struct usage_root *uroot = container_of(root, struct usage_root, root);
		usage_login(&uroot->usage);
	}
	quota_root_iter_deinit(&iter);
}

static void client_created(struct client **client)
{
	if (mail_user_is_plugin_loaded((*client)->user, imap_module)) {
		tell_login((*client)->user);
		client_add_capability(*client, "QUOTA=RES-STORAGE");
		client_add_capability(*client, "QUOTA=RES-MESSAGE");
		if ((*client)->user->admin)
			client_add_capability(*client, "QUOTASET");
	}
	if (next_client_created != NULL)
		next_client_created(client);
}

EXPORT void imap_quota_usage_plugin_init(struct module *module)
{
	imap_module = module;
	command_unregister("SETQUOTA");
	command_register("SETQUOTA", cmd_setquota, 0);
	status_init();
	next_client_created = imap_client_created_hook_set(client_created);
}

EXPORT void imap_quota_usage_plugin_deinit(void)
{
	status_deinit();
	/* imap_quota unregisters the other command, under the name that it knows */
	imap_client_created_hook_set(next_client_created);
}
