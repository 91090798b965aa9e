-- The record of what has been applied. `postern sql migrate` writes it.
--
-- Every migration is forward only and every statement in it may be run again
-- without harm: MariaDB commits each DDL statement by itself, so a migration
-- that was interrupted is simply run once more from its first line.
-- No statement holds another one: a plain client can read these files too.

CREATE TABLE IF NOT EXISTS schema_migrations (
	name VARCHAR(120) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
	checksum CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'SHA-256 of the file',
	applied_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
	duration_ms BIGINT UNSIGNED NOT NULL DEFAULT 0,
	PRIMARY KEY (name)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
