/* A name is in the file before anybody else may forget it, and until the user is counted. */
#include "dovecot-plugin-quota/quotad/air.h"

int air_open(struct air *air, const char *state_dir, struct ledger *ledger, struct recount *recount,
	     struct sbuf *error)
{
	char path[1024];
	struct sbuf b;
	*air = (struct air){.ledger = ledger, .recount = recount};
	sbuf_init(&b, path, sizeof(path));
	sbuf_addf(&b, "%s/open", state_dir);
	const int rc = openmap_open(sbuf_cstr(&b), &air->map, error);
	if (rc < 0)
		return rc;
	openmap_take(air->map, air_remember, air);
	return 0;
}

void air_close(struct air *air)
{
	openmap_close(&air->map);
}

void air_note(struct air *air, struct ledger_user *u)
{
	const bool open = u->open > 0 || u->pending > 0 || u->urgent;
	if (open && u->slot == 0)
		u->slot = openmap_add(air->map, span_str(u->name));
	if (open || u->slot == 0)
		return;
	openmap_del(air->map, u->slot);
	u->slot = 0;
}

bool air_remember(void *arg, struct span name)
{
	struct air *air = arg;
	struct ledger_user *user = ledger_add(air->ledger, name);
	if (user == NULL)
		return name.len > QUOTA_USER_MAX; /* nobody's */
	ledger_unseen(air->ledger, user);
	air_note(air, user);
	recount_look(air->recount);
	return user->slot != 0;
}
