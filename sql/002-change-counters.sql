-- What daemons poll instead of a whole table: triggers raise the number on
-- every insert, update and delete, in the same transaction. Cascading deletes
-- fire no triggers in MariaDB, so the parent's trigger counts for its children.
--
-- And the mark that makes a consumer of an outbox idempotent: it is raised in
-- the same transaction as the batch that it stands for.

CREATE TABLE IF NOT EXISTS change_counters (
	name VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'table that is watched',
	value BIGINT UNSIGNED NOT NULL DEFAULT 0,
	changed_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
	PRIMARY KEY (name)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

INSERT IGNORE INTO change_counters (name) VALUES
	('virtual_users'), ('domain_limits'), ('dkim_keys'), ('rate_limits');

CREATE TABLE IF NOT EXISTS applied_batches (
	consumer VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'name of the daemon',
	instance BIGINT UNSIGNED NOT NULL COMMENT 'of the outbox',
	seq BIGINT UNSIGNED NOT NULL COMMENT 'last record that was applied',
	applied_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3),
	PRIMARY KEY (consumer, instance)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
