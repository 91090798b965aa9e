/*
 * STATUS with the items that RFC 9208 has beside its resources, DELETED and DELETED-STORAGE, which Dovecot does not
 * know.  Without them the command is Dovecot's own.
 */
#include "dovecot-plugin-quota/plugin/status.h"

#include "lib.h"

#include "imap-common.h"

#include "imap-commands.h"
#include "imap-quote.h"
#include "imap-status.h"
#include "mail-search-build.h"
#include "str.h"

static struct command dovecot_status;

/* What a client asks for. */
struct asked {
	struct imap_status_items items; /* of Dovecot's */
	bool deleted, deleted_storage;
};

struct deleted {
	uint64_t messages, bytes;
};

/* Takes the items of RFC 9208 out of LIST; the rest is Dovecot's to read. */
static const struct imap_arg *take_own(const struct imap_arg *list, struct asked *asked)
{
	unsigned int count = 0;
	const char *name;

	while (!IMAP_ARG_IS_EOL(&list[count]))
		count++;
	struct imap_arg *rest = t_new(struct imap_arg, count + 1), *to = rest;
	for (unsigned int i = 0; i <= count; i++) {
		const bool atom = imap_arg_get_atom(&list[i], &name);
		if (atom && strcasecmp(name, "DELETED") == 0)
			asked->deleted = TRUE;
		else if (atom && strcasecmp(name, "DELETED-STORAGE") == 0)
			asked->deleted_storage = TRUE;
		else
			*to++ = list[i];
	}
	return rest;
}

/* False where the size of the mail cannot be read. One that is gone meanwhile has none. */
static bool add_mail(struct mail *mail, const struct asked *asked, struct deleted *sum)
{
	uoff_t size = 0;

	if (asked->deleted_storage && mail_get_virtual_size(mail, &size) < 0)
		return mailbox_get_last_mail_error(mail->box) == MAIL_ERROR_EXPUNGED;
	sum->messages++;
	sum->bytes += size;
	return TRUE;
}

static int add_deleted(struct mailbox *box, const struct asked *asked, struct deleted *sum_r)
{
	struct mail_search_args *args = mail_search_build_init();
	struct mailbox_transaction_context *t = mailbox_transaction_begin(box, 0, __func__);
	struct mail *mail;
	bool sized = TRUE;

	mail_search_build_add(args, SEARCH_FLAGS)->value.flags = MAIL_DELETED;
	struct mail_search_context *search =
		mailbox_search_init(t, args, NULL, asked->deleted_storage ? MAIL_FETCH_VIRTUAL_SIZE : 0, NULL);
	mail_search_args_unref(&args);
	while (sized && mailbox_search_next(search, &mail))
		sized = add_mail(mail, asked, sum_r);
	/* The client is told of the error that was first. */
	if (!sized)
		mail_storage_last_error_push(mailbox_get_storage(box));
	const bool searched = mailbox_search_deinit(&search) == 0;
	mailbox_transaction_rollback(&t);
	if (!sized)
		mail_storage_last_error_pop(mailbox_get_storage(box));
	return sized && searched ? 0 : -1;
}

/* Of the mailbox as the client sees it where that is the selected one. */
static bool count_deleted(struct client_command_context *cmd, struct mail_namespace *ns, const char *vname,
			  const struct asked *asked, struct deleted *sum_r)
{
	struct mailbox *selected = cmd->client->mailbox;
	struct mailbox *box = selected;
	int ret = 0;

	if (selected == NULL || !mailbox_equals(selected, ns, vname)) {
		box = mailbox_alloc(ns->list, vname, MAILBOX_FLAG_READONLY);
		ret = mailbox_open(box) < 0 ? -1 : mailbox_sync(box, 0);
	}
	if (ret == 0)
		ret = add_deleted(box, asked, sum_r);
	if (ret < 0)
		client_send_box_error(cmd, box);
	if (box != selected)
		mailbox_free(&box);
	return ret == 0;
}

static void add_number(string_t *str, bool wanted, const char *name, uint64_t value)
{
	if (wanted)
		str_printfa(str, "%s %" PRIu64 " ", name, value);
}

static void send_status(struct client *client, const char *name, const struct asked *asked,
			const struct imap_status_result *result, const struct deleted *deleted)
{
	const struct mailbox_status *s = &result->status;
	const enum imap_status_item_flags flags = asked->items.flags;
	string_t *str = t_str_new(128);

	str_append(str, "* STATUS ");
	imap_append_astring(str, name);
	str_append(str, " (");
	add_number(str, (flags & IMAP_STATUS_ITEM_MESSAGES) != 0, "MESSAGES", s->messages);
	add_number(str, (flags & IMAP_STATUS_ITEM_RECENT) != 0, "RECENT", s->recent);
	add_number(str, (flags & IMAP_STATUS_ITEM_UIDNEXT) != 0, "UIDNEXT", s->uidnext);
	add_number(str, (flags & IMAP_STATUS_ITEM_UIDVALIDITY) != 0, "UIDVALIDITY", s->uidvalidity);
	add_number(str, (flags & IMAP_STATUS_ITEM_UNSEEN) != 0, "UNSEEN", s->unseen);
	add_number(str, (flags & IMAP_STATUS_ITEM_HIGHESTMODSEQ) != 0, "HIGHESTMODSEQ", s->highest_modseq);
	add_number(str, (flags & IMAP_STATUS_ITEM_SIZE) != 0, "SIZE", result->metadata.virtual_size);
	add_number(str, (flags & IMAP_STATUS_ITEM_X_SIZE) != 0, "X-SIZE", result->metadata.virtual_size);
	if ((flags & IMAP_STATUS_ITEM_X_GUID) != 0)
		str_printfa(str, "X-GUID %s ", guid_128_to_string(result->metadata.guid));
	add_number(str, asked->deleted, "DELETED", deleted->messages);
	add_number(str, asked->deleted_storage, "DELETED-STORAGE", deleted->bytes);
	str_truncate(str, str_len(str) - 1);
	str_append_c(str, ')');
	client_send_line(client, str_c(str));
}

static bool cmd_status_with_deleted(struct client_command_context *cmd)
{
	const struct imap_arg *args, *list;
	struct asked asked = {.deleted = FALSE};
	struct imap_status_result result = {.errstr = NULL};
	struct deleted deleted = {0, 0};
	struct mail_namespace *ns;
	const char *name, *vname;

	if (!client_read_args(cmd, 2, 0, &args))
		return FALSE;
	if (!imap_arg_get_astring(&args[0], &name) || !imap_arg_get_list(&args[1], &list))
		return dovecot_status.func(cmd);
	const struct imap_arg *rest = take_own(list, &asked);
	if (!asked.deleted && !asked.deleted_storage)
		return dovecot_status.func(cmd); /* which reads the same arguments once more */
	if (!IMAP_ARG_IS_EOL(rest) && imap_status_parse_items(cmd, rest, &asked.items) < 0)
		return TRUE;
	vname = name;
	ns = client_find_namespace(cmd, &vname);
	if (ns == NULL)
		return TRUE;
	if (!IMAP_ARG_IS_EOL(rest) && imap_status_get(cmd, ns, vname, &asked.items, &result) < 0) {
		client_send_tagline(cmd, result.errstr);
		return TRUE;
	}
	if (!count_deleted(cmd, ns, vname, &asked, &deleted))
		return TRUE;
	send_status(cmd->client, name, &asked, &result, &deleted);
	client_send_tagline(cmd, "OK Status completed.");
	return TRUE;
}

void status_init(void)
{
	dovecot_status = *command_find("STATUS");
	command_unregister("STATUS");
	command_register("STATUS", cmd_status_with_deleted, dovecot_status.flags);
}

void status_deinit(void)
{
	command_unregister("STATUS");
	command_register("STATUS", dovecot_status.func, dovecot_status.flags);
}
