-- Overrides of the limits in policyd-ratelimit's configuration, and what
-- happened under them. One row a window: an account with 1000/1h and 5000/1d
-- has two.

CREATE TABLE IF NOT EXISTS rate_limits (
	id INT NOT NULL AUTO_INCREMENT,
	scope ENUM('client_ip', 'client_net', 'account', 'sender', 'sender_domain', 'account_domain',
		'recipient', 'recipient_domain', 'global') NOT NULL,
	rate_key VARCHAR(255) NOT NULL DEFAULT '' COMMENT 'address, account, domain, network as A/P; empty for global',
	unit ENUM('messages', 'recipients', 'bytes', 'auth_failures') NOT NULL DEFAULT 'messages',
	max_count BIGINT UNSIGNED NULL COMMENT 'NULL: no limit; 0: blocked',
	window_s INT UNSIGNED NOT NULL DEFAULT 3600,
	action ENUM('DEFER', 'REJECT', 'HOLD') NOT NULL DEFAULT 'DEFER',
	shadow TINYINT(1) NOT NULL DEFAULT 0 COMMENT '1: only log what it would have done',
	note VARCHAR(255) NOT NULL DEFAULT '',
	created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
	updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
	PRIMARY KEY (id),
	UNIQUE KEY rate_limits_rule (scope, rate_key, unit, window_s)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE OR REPLACE TRIGGER rate_limits_inserted AFTER INSERT ON rate_limits FOR EACH ROW
	UPDATE change_counters SET value = value + 1 WHERE name = 'rate_limits';
CREATE OR REPLACE TRIGGER rate_limits_updated AFTER UPDATE ON rate_limits FOR EACH ROW
	UPDATE change_counters SET value = value + 1 WHERE name = 'rate_limits';
CREATE OR REPLACE TRIGGER rate_limits_deleted AFTER DELETE ON rate_limits FOR EACH ROW
	UPDATE change_counters SET value = value + 1 WHERE name = 'rate_limits';

CREATE TABLE IF NOT EXISTS rate_events (
	id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
	outbox_instance BIGINT UNSIGNED NOT NULL,
	outbox_seq BIGINT UNSIGNED NOT NULL,
	happened_at DATETIME(3) NOT NULL COMMENT 'UTC',
	kind VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT 'limited',
	scope VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
	rate_key VARCHAR(255) NOT NULL DEFAULT '',
	unit VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT 'messages',
	max_count BIGINT UNSIGNED NULL,
	window_s INT UNSIGNED NULL,
	action VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
	shadow TINYINT(1) NOT NULL DEFAULT 0,
	client_ip VARCHAR(45) CHARACTER SET ascii COLLATE ascii_bin NULL,
	account VARCHAR(255) NULL,
	sender VARCHAR(320) NULL,
	recipient VARCHAR(320) NULL,
	detail VARCHAR(1024) NULL,
	PRIMARY KEY (id),
	UNIQUE KEY rate_events_outbox (outbox_instance, outbox_seq),
	KEY rate_events_time (happened_at),
	KEY rate_events_key (scope, rate_key, happened_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
