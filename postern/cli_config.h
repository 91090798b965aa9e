/* What the frame opens for a subcommand: its configuration and the database. */
#ifndef POSTERN_CLI_CONFIG_H
#define POSTERN_CLI_CONFIG_H

#include "postern/cli.h"

/* Fills cli->conf and cli->config; returns an exit status. */
int cli_config_open(struct cli *cli) MUST_CHECK;

/*
 * Connects cli->db, which must be NULL, to the schema of the configuration, or to SCHEMA where it
 * is not NULL.  On failure cli->db may be left for db_errno().
 */
int cli_db_open(struct cli *cli, const char *schema) MUST_CHECK;

/*
 * The words -t (check the configuration), -n (print what differs from the
 * defaults) and -d (print the defaults), as the daemons have them.
 */
int cli_config_tool(struct cli *cli, char letter) MUST_CHECK;

/* Frees whatever is open. */
void cli_config_close(struct cli *cli);

#endif
