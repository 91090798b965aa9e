/* The tables of subcommands, one a file; commands.c puts them together. */
#ifndef POSTERN_COMMANDS_H
#define POSTERN_COMMANDS_H

#include "postern/cli.h"

extern const struct cli_command commands_accounts[];
extern const struct cli_command commands_alias[];
extern const struct cli_command commands_arc[];
extern const struct cli_command commands_auth[];
extern const struct cli_command commands_dkim[];
extern const struct cli_command commands_dkim_rotate[];
extern const struct cli_command commands_dkim_sign[];
extern const struct cli_command commands_dkim_test[];
extern const struct cli_command commands_dmarc[];
extern const struct cli_command commands_dmarc_failure[];
extern const struct cli_command commands_dmarc_import[];
extern const struct cli_command commands_dmarc_report[];
extern const struct cli_command commands_dmarc_summary[];
extern const struct cli_command commands_domain[];
extern const struct cli_command commands_events[];
extern const struct cli_command commands_index_erase[];
extern const struct cli_command commands_index_rebuild[];
extern const struct cli_command commands_index_verify[];
extern const struct cli_command commands_search[];
extern const struct cli_command commands_limits[];
extern const struct cli_command commands_limits_replay[];
extern const struct cli_command commands_quota[];
extern const struct cli_command commands_quota_verify[];
extern const struct cli_command commands_spf[];
extern const struct cli_command commands_sql[];
extern const struct cli_command commands_status[];
extern const struct cli_command commands_tenant[];
extern const struct cli_command commands_user[];

#endif
