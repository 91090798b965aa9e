/*
 * `index verify`: lists the mailboxes of a user through doveadm and the rows of
 * the index, on its own, and names what differs.  Shares with the indexer only
 * how a place, flags and a mail GUID are written.
 *
 * Mail changes while one looks.  So what differs is looked at again after the
 * time that the index may take to follow, and only what differs both times
 * counts.
 */
#include <time.h>

#include "lib/base/arena.h"
#include "lib/base/htab.h"
#include "lib/base/num.h"
#include "lib/run/conf.h"
#include "lmtp-indexer/doveadm.h"
#include "lmtp-indexer/reconcile.h"
#include "postern/commands.h"
#include "postern/index_diff.h"
#include "postern/lookup.h"

#define TIMEOUT_MS 60000
#define KEY_MAX 1024
#define VALUE_MAX 8192
#define ARENA_MAX (1u << 30) /* texts of one user's mails, each kept once */
#define TEXTS_MAX (1u << 20)
#define AGAIN_MS 2000 /* what differs is looked at again after so long */
#define COLUMNS_MAX 6

struct list {
	struct index_mail *items;
	size_t count, size;
};

struct box {
	struct box *next;
	struct span guid, name;
	uint32_t uid_validity;
};

/* What is being gathered about one user. */
struct look {
	struct cli *cli;
	struct arena mem;
	struct htab texts; /* of struct span */
	struct box *boxes;
	struct list mails, rows;
	size_t columns;
	char value_mem[COLUMNS_MAX][VALUE_MAX];
	struct sbuf values[COLUMNS_MAX];
	int (*row)(struct look *look);
	int rc;
};

struct verify {
	struct doveadm *doveadm;
	json_t *found, *before; /* differences of this look and of the one before */
	json_t *all;
	uint64_t messages, users;
	const char *user;
};

/* ---- Gathering ---- */

/* The one copy of a text. */
static int keep(struct look *l, struct span text, struct span *kept_out)
{
	struct span *known = htab_get(&l->texts, text);
	if (known == NULL) {
		known = arena_alloc(&l->mem, sizeof(*known));
		if (known == NULL || arena_dup(&l->mem, text, known) < 0)
			return ERR_LIMIT;
		if (l->texts.count < TEXTS_MAX && htab_put(&l->texts, *known, known, NULL) < 0)
			return ERR_LIMIT;
	}
	*kept_out = *known;
	return 0;
}

static struct index_mail *add(struct list *list)
{
	if (list->count == list->size) {
		list->size = list->size == 0 ? 1024 : list->size * 2;
		list->items = mem_realloc(list->items, list->size * sizeof(*list->items));
	}
	struct index_mail *mail = &list->items[list->count++];
	*mail = (struct index_mail){.uid = 0};
	return mail;
}

static void take_piece(void *arg, size_t index, struct span bytes, bool last)
{
	struct look *l = arg;
	size_t column = index % l->columns;
	struct sbuf *value = &l->values[column];
	sbuf_add(value, span_take(bytes, value->size - 1 - value->len));
	if (!last || column + 1 < l->columns)
		return;
	if (l->rc == 0)
		l->rc = l->row(l);
	for (size_t i = 0; i < l->columns; i++)
		sbuf_reset(&l->values[i]);
}

static uint32_t number(struct span text)
{
	uint64_t n = 0;
	return num_parse_u64(text, UINT32_MAX, &n) < 0 ? 0 : (uint32_t)n;
}

/* name, uidvalidity, guid: in doveadm's own order. */
static int take_box(struct look *l)
{
	struct box *box = arena_alloc(&l->mem, sizeof(*box));
	struct span guid;
	if (box == NULL || keep(l, sbuf_span(&l->values[2]), &guid) < 0 ||
	    keep(l, sbuf_span(&l->values[0]), &box->name) < 0)
		return ERR_LIMIT;
	box->guid = guid;
	box->uid_validity = number(sbuf_span(&l->values[1]));
	box->next = l->boxes;
	l->boxes = box;
	return 0;
}

/* mailbox-guid, uid, guid, flags */
static int take_mail(struct look *l)
{
	char mem[VALUE_MAX];
	struct sbuf flags;
	const struct box *box = l->boxes;
	while (box != NULL && !span_eq(box->guid, sbuf_span(&l->values[0])))
		box = box->next;
	if (box == NULL)
		return 0; /* made since the mailboxes were listed */
	struct index_mail *mail = add(&l->mails);
	mail->box_guid = box->guid;
	mail->box_name = box->name;
	mail->uid_validity = box->uid_validity;
	mail->uid = number(sbuf_span(&l->values[1]));
	reconcile_guid(sbuf_span(&l->values[2]), mail->guid);
	mail->has_guid = true;
	sbuf_init(&flags, mem, sizeof(mem));
	reconcile_flags(&flags, sbuf_span(&l->values[3]));
	return keep(l, sbuf_span(&flags), &mail->flags);
}

static int take_row(void *arg, const struct db_value *v, size_t count)
{
	struct look *l = arg;
	if (count < 8)
		return ERR_SYNTAX;
	struct index_mail *row = add(&l->rows);
	if (num_parse_u64(v[0].text, UINT64_MAX, &row->message_id) < 0)
		row->message_id = 0;
	row->uid_validity = number(v[3].text);
	row->uid = number(v[4].text);
	row->pending = span_eq(v[7].text, SPAN_LIT("1"));
	row->has_guid = !v[6].null && v[6].text.len == sizeof(row->guid);
	if (row->has_guid)
		memcpy(row->guid, v[6].text.ptr, sizeof(row->guid));
	int rc = keep(l, v[1].text, &row->box_name);
	if (rc == 0)
		rc = keep(l, v[2].text, &row->box_guid);
	return rc < 0 ? rc : keep(l, v[5].text, &row->flags);
}

static int ask(struct look *l, struct verify *v, const char *const *words, size_t count, size_t columns,
	       int (*row)(struct look *look))
{
	char why[512];
	struct sbuf error;
	sbuf_init(&error, why, sizeof(why));
	l->columns = columns;
	l->row = row;
	l->rc = 0;
	for (size_t i = 0; i < columns; i++)
		sbuf_init(&l->values[i], l->value_mem[i], sizeof(l->value_mem[i]));
	int rc = doveadm_run(v->doveadm, v->user, words, count, take_piece, l, &error);
	if (rc == 0 && l->rc < 0)
		return cli_fail(l->cli, EX_SOFTWARE, "%s: %s", v->user, err_text(l->rc));
	if (rc == ERR_NOT_FOUND)
		return cli_fail(l->cli, EX_NOUSER, "Dovecot has no user %s", v->user);
	return rc == 0 ? EX_OK : cli_fail(l->cli, EX_TEMPFAIL, "%s: %s", v->user, sbuf_cstr(&error));
}

static int gather(struct look *l, struct verify *v)
{
	static const char *const status[] = {"mailbox status", "uidvalidity guid", "*"};
	static const char *const fetch[] = {"fetch", "mailbox-guid uid guid flags", "all"};
	const struct db_param user = DB_P_STR(v->user);
	int rc = db_stream(l->cli->db,
			   "SELECT m.id, COALESCE(m.mailbox_name, ''), COALESCE(m.mailbox_guid, ''), m.uid_validity, m.uid, "
			   "COALESCE(m.flags, ''), m.mail_guid, m.parse_state = 'pending' FROM messages m JOIN virtual_users u ON u.id = m.user_id "
			   "WHERE u.email = ? AND m.deleted_at IS NULL",
			   &user, 1, take_row, l);
	if (rc < 0)
		return cli_fail_db(l->cli, rc);
	int exit_status = ask(l, v, status, 3, 3, take_box);
	return exit_status == EX_OK ? ask(l, v, fetch, 3, 4, take_mail) : exit_status;
}

/* ---- Telling ---- */

static void set_text(json_t *object, const char *key, struct span text)
{
	json_t *value = json_stringn(text.ptr == NULL ? "" : text.ptr, text.len);
	json_object_set_new(object, key, value != NULL ? value : json_string("(not UTF-8)"));
}

/* What both sides say. */
static void set_details(json_t *object, enum index_difference kind, const struct index_mail *mail, const struct index_mail *row)
{
	if (kind == INDEX_WRONG_FOLDER)
		set_text(object, "index_mailbox", row->box_name);
	if (kind == INDEX_WRONG_FLAGS) {
		set_text(object, "flags", mail->flags);
		set_text(object, "index_flags", row->flags);
	}
}

static void note(void *arg, enum index_difference kind, const struct index_mail *mail, const struct index_mail *row)
{
	struct verify *v = arg;
	const struct index_mail *at = mail != NULL ? mail : row;
	if (at == NULL)
		return;
	json_t *object = json_pack("{s:s, s:s}", "user", v->user, "kind", index_difference_name(kind));
	set_text(object, "mailbox", at->box_name);
	json_object_set_new(object, "uid", at->uid != 0 ? json_integer(at->uid) : json_null());
	json_object_set_new(object, "message", row != NULL ? json_integer((json_int_t)row->message_id) : json_null());
	if (mail != NULL && row != NULL)
		set_details(object, kind, mail, row);
	json_array_append_new(v->found, object);
}

static int look_once(struct cli *cli, struct verify *v)
{
	struct look *l = mem_zalloc(sizeof(*l));
	l->cli = cli;
	arena_init(&l->mem, ARENA_MAX);
	htab_init(&l->texts, TEXTS_MAX);
	int status = gather(l, v);
	v->found = json_array();
	if (status == EX_OK)
		index_diff(l->mails.items, l->mails.count, l->rows.items, l->rows.count, note, v);
	v->messages += v->before == NULL ? l->mails.count : 0;
	htab_done(&l->texts, NULL);
	arena_done(&l->mem);
	free(l->mails.items);
	free(l->rows.items);
	free(l);
	return status;
}

/* Moves what differed both times to v->all. */
static void keep_lasting(struct verify *v)
{
	struct htab seen;
	json_t *item;
	size_t i;
	htab_init(&seen, SIZE_MAX);
	json_array_foreach(v->before, i, item) {
		char *text = json_dumps(item, JSON_COMPACT | JSON_SORT_KEYS);
		if (text == NULL || htab_put(&seen, span_str(text), text, NULL) < 0)
			free(text);
	}
	json_array_foreach(v->found, i, item) {
		char *text = json_dumps(item, JSON_COMPACT | JSON_SORT_KEYS);
		if (text != NULL && htab_get(&seen, span_str(text)) != NULL)
			json_array_append(v->all, item);
		free(text);
	}
	htab_done(&seen, free);
}

static int verify_user(struct cli *cli, struct verify *v, const char *user)
{
	static const struct timespec pause = {AGAIN_MS / 1000, AGAIN_MS % 1000 * 1000000};
	v->user = user;
	v->before = NULL;
	int status = look_once(cli, v);
	if (status == EX_OK && json_array_size(v->found) > 0) {
		v->before = v->found;
		nanosleep(&pause, NULL);
		status = look_once(cli, v);
		if (status == EX_OK)
			keep_lasting(v);
		json_decref(v->before);
	}
	json_decref(v->found);
	v->users++;
	return status;
}

static int verify_all(struct cli *cli, struct verify *v)
{
	static const char *const keys[] = {"email", NULL};
	json_t *users = NULL, *user;
	size_t i;
	int status = lookup_rows(cli, "SELECT email FROM virtual_users WHERE enabled = 1 ORDER BY email", NULL, 0, keys, &users);
	json_array_foreach(users, i, user) {
		if (status == EX_OK)
			status = verify_user(cli, v, json_string_value(json_object_get(user, "email")));
	}
	json_decref(users);
	return status;
}

static json_t *detail_of(const json_t *difference)
{
	const char *folder = json_string_value(json_object_get(difference, "index_mailbox"));
	const char *flags = json_string_value(json_object_get(difference, "index_flags"));
	if (folder != NULL)
		return json_sprintf("the index says %s", folder[0] != '\0' ? folder : "nothing");
	if (flags != NULL)
		return json_sprintf("%s, the index says %s", json_string_value(json_object_get(difference, "flags")),
				    flags[0] != '\0' ? flags : "none");
	return json_string("");
}

static int print_differences(struct cli *cli, struct verify *v)
{
	static const struct table_column columns[] = {{"user", "User", false, 40},     {"kind", "Difference", false, 0},
						      {"mailbox", "Mailbox", false, 40}, {"uid", "UID", true, 0},
						      {"message", "Message", true, 0}, {"detail", "Detail", false, 60},
						      {NULL, NULL, false, 0}};
	size_t count = json_array_size(v->all), i;
	json_t *item;
	int status;
	if (cli->json) {
		status = cli_print_json(cli, json_pack("{s:b, s:I, s:I, s:O}", "ok", count == 0, "users", (json_int_t)v->users,
						       "messages", (json_int_t)v->messages, "differences", v->all));
	} else if (count == 0) {
		fprintf(cli->out, "%llu messages of %llu user%s are in the index as they are in the mailbox\n",
			(unsigned long long)v->messages, (unsigned long long)v->users, v->users == 1 ? "" : "s");
		status = EX_OK;
	} else {
		json_array_foreach(v->all, i, item) {
			json_object_set_new(item, "detail", detail_of(item));
		}
		status = cli_print_rows(cli, columns, json_incref(v->all));
	}
	return status == EX_OK && count > 0 ? 1 : status;
}

static int read_key(struct cli *cli, struct sbuf *key)
{
	const char *path = conf_get_string(cli->conf, cli->config, "mailbox_key_file");
	if (path[0] == '\0')
		return EX_OK;
	if (cli_load_file(path, key) < 0)
		return cli_fail(cli, EX_NOINPUT, "%s cannot be read", path);
	sbuf_truncate(key, strcspn(sbuf_cstr(key), "\r\n"));
	return EX_OK;
}

static int verify(struct cli *cli)
{
	char email[LOOKUP_NAME_SIZE], key_mem[KEY_MAX];
	const char *server = conf_get_string(cli->conf, cli->config, "mailbox_server");
	struct verify v = {.all = NULL};
	struct sbuf key;
	uint64_t id;
	sbuf_init(&key, key_mem, sizeof(key_mem));
	if (cli_has(cli, "all") == (cli_arg(cli, 0) != NULL))
		return cli_fail(cli, EX_USAGE, "name a user, or --all");
	if (server[0] == '\0')
		return cli_fail(cli, EX_CONFIG, "mailbox_server is not set");
	int status = read_key(cli, &key);
	if (status != EX_OK)
		return status;
	v.doveadm = doveadm_new(server, sbuf_cstr(&key), TIMEOUT_MS, NULL);
	v.all = json_array();
	if (cli_has(cli, "all")) {
		status = verify_all(cli, &v);
	} else {
		status = lookup_address_arg(cli, cli_arg(cli, 0), NAMES_MAILBOX, email);
		if (status == EX_OK)
			status = lookup_user_id(cli, email, &id);
		if (status == EX_OK)
			status = verify_user(cli, &v, email);
	}
	if (status == EX_OK)
		status = print_differences(cli, &v);
	json_decref(v.all);
	doveadm_free(&v.doveadm);
	return status;
}

static const struct cli_option verify_options[] = {
	{"all", NULL, "all users that are enabled", 0},
	{NULL, NULL, NULL, 0},
};

const struct cli_command commands_index_verify[] = {
	{"index verify", "[USER]", "compare the index with the mailboxes", verify_options, 0, 1,
	 CLI_NEEDS_CONFIG | CLI_NEEDS_DB | CLI_SLOW_SQL, verify},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};
