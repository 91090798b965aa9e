-- Domains, mailboxes, aliases and usage: the tables that dashboards and panels
-- already know, with exactly these names and columns. Addresses compare without
-- regard to case (Postfix asks in lower case); queries give back the stored form.

CREATE TABLE IF NOT EXISTS virtual_domains (
	id INT NOT NULL AUTO_INCREMENT,
	name VARCHAR(255) NOT NULL COMMENT 'A-labels, lower case',
	created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
	PRIMARY KEY (id),
	UNIQUE KEY virtual_domains_name (name)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE IF NOT EXISTS virtual_users (
	id INT NOT NULL AUTO_INCREMENT,
	domain_id INT NOT NULL,
	email VARCHAR(255) NOT NULL,
	password VARCHAR(255) NOT NULL COMMENT 'with its scheme: {BLF-CRYPT}$2y$12$...',
	quota_mb INT NOT NULL DEFAULT 1024 COMMENT '0: no limit',
	enabled TINYINT(1) NOT NULL DEFAULT 1,
	created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
	PRIMARY KEY (id),
	UNIQUE KEY virtual_users_email (email),
	KEY virtual_users_domain (domain_id),
	CONSTRAINT virtual_users_domain FOREIGN KEY (domain_id)
		REFERENCES virtual_domains (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE IF NOT EXISTS virtual_aliases (
	id INT NOT NULL AUTO_INCREMENT,
	domain_id INT NOT NULL,
	source VARCHAR(255) NOT NULL COMMENT 'address, or @domain for a catch-all',
	destination VARCHAR(255) NOT NULL COMMENT 'one address; several rows for several',
	created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
	PRIMARY KEY (id),
	KEY virtual_aliases_source (source),
	KEY virtual_aliases_domain (domain_id),
	CONSTRAINT virtual_aliases_domain FOREIGN KEY (domain_id)
		REFERENCES virtual_domains (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

-- A hundredth of a megabyte is 10 KB: the bytes are the truth, the dashboards'
-- column follows from them. What dashboards do not know is invisible to SELECT *.
CREATE TABLE IF NOT EXISTS mailbox_usage (
	email VARCHAR(255) NOT NULL,
	usage_bytes BIGINT NOT NULL DEFAULT 0,
	messages INT NOT NULL DEFAULT 0,
	version BIGINT UNSIGNED NOT NULL INVISIBLE DEFAULT 0 COMMENT 'of quotad: an older one never replaces a newer',
	usage_mb DECIMAL(10,2) AS (ROUND(usage_bytes / 1048576, 2)) VIRTUAL,
	last_updated TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
	PRIMARY KEY (email),
	CONSTRAINT mailbox_usage_user FOREIGN KEY (email)
		REFERENCES virtual_users (email) ON DELETE CASCADE ON UPDATE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

-- Limits that all mailboxes of a domain share; no row: none.
CREATE TABLE IF NOT EXISTS domain_limits (
	domain_id INT NOT NULL,
	quota_mb INT NOT NULL DEFAULT 0 COMMENT '0: no limit',
	updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
	PRIMARY KEY (domain_id),
	CONSTRAINT domain_limits_domain FOREIGN KEY (domain_id)
		REFERENCES virtual_domains (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE OR REPLACE TRIGGER virtual_users_inserted AFTER INSERT ON virtual_users FOR EACH ROW
	UPDATE change_counters SET value = value + 1 WHERE name = 'virtual_users';
CREATE OR REPLACE TRIGGER virtual_users_updated AFTER UPDATE ON virtual_users FOR EACH ROW
	UPDATE change_counters SET value = value + 1 WHERE name = 'virtual_users'
	AND NOT (NEW.email <=> OLD.email AND NEW.quota_mb <=> OLD.quota_mb
		AND NEW.enabled <=> OLD.enabled AND NEW.domain_id <=> OLD.domain_id);
CREATE OR REPLACE TRIGGER virtual_users_deleted AFTER DELETE ON virtual_users FOR EACH ROW
	UPDATE change_counters SET value = value + 1 WHERE name = 'virtual_users';

CREATE OR REPLACE TRIGGER domain_limits_inserted AFTER INSERT ON domain_limits FOR EACH ROW
	UPDATE change_counters SET value = value + 1 WHERE name = 'domain_limits';
CREATE OR REPLACE TRIGGER domain_limits_updated AFTER UPDATE ON domain_limits FOR EACH ROW
	UPDATE change_counters SET value = value + 1 WHERE name = 'domain_limits';
CREATE OR REPLACE TRIGGER domain_limits_deleted AFTER DELETE ON domain_limits FOR EACH ROW
	UPDATE change_counters SET value = value + 1 WHERE name = 'domain_limits';

-- Users and limits of a removed domain go by cascade, without their triggers.
CREATE OR REPLACE TRIGGER virtual_domains_deleted AFTER DELETE ON virtual_domains FOR EACH ROW
	UPDATE change_counters SET value = value + 1 WHERE name IN ('virtual_users', 'domain_limits');
