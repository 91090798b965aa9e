/* The dispatch table: each file of subcommands exports one table of rows. */
#include "postern/commands.h"

const struct cli_command *const cli_commands[] = {
	commands_domain, commands_user, commands_events, commands_index_erase,	  commands_alias, commands_dkim,     commands_dkim_sign,
	commands_arc,	 commands_auth,	  commands_dmarc, commands_spf,	     commands_search,
	commands_limits, commands_limits_replay, commands_status, commands_sql,	  commands_accounts, commands_tenant, commands_dmarc_import,
	commands_index_verify, commands_index_rebuild,
	commands_dmarc_report, commands_dmarc_failure, commands_dmarc_summary,
	commands_quota, commands_quota_verify, commands_dkim_test, commands_dkim_rotate, NULL,
};
