-- Limits of the number of messages, for a mailbox and for a domain. Invisible, so that
-- SELECT * of dashboards and INSERTs without columns stay as they were.
ALTER TABLE virtual_users
	ADD COLUMN IF NOT EXISTS quota_messages INT NOT NULL INVISIBLE DEFAULT 0 COMMENT '0: no limit' AFTER quota_mb;
ALTER TABLE domain_limits
	ADD COLUMN IF NOT EXISTS quota_messages INT NOT NULL INVISIBLE DEFAULT 0 COMMENT '0: no limit' AFTER quota_mb;

CREATE OR REPLACE TRIGGER virtual_users_updated AFTER UPDATE ON virtual_users FOR EACH ROW
	UPDATE change_counters SET value = value + 1 WHERE name = 'virtual_users'
	AND NOT (NEW.email <=> OLD.email AND NEW.quota_mb <=> OLD.quota_mb
		AND NEW.quota_messages <=> OLD.quota_messages
		AND NEW.enabled <=> OLD.enabled AND NEW.domain_id <=> OLD.domain_id);

-- What each mailbox held on each day, for the forecast of `postern quota`.
CREATE TABLE IF NOT EXISTS mailbox_usage_history (
	email VARCHAR(255) NOT NULL,
	day DATE NOT NULL,
	usage_bytes BIGINT NOT NULL,
	messages INT NOT NULL,
	PRIMARY KEY (email, day),
	KEY mailbox_usage_history_day (day),
	CONSTRAINT mailbox_usage_history_user FOREIGN KEY (email)
		REFERENCES virtual_users (email) ON DELETE CASCADE ON UPDATE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
