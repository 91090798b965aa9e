-- Signing keys. A domain may have several at once: an rsa and an ed25519 one,
-- and an old and a new one while they are rotated. The domain need not be a
-- virtual domain (relayed domains sign too), hence no foreign key; a removed
-- virtual domain takes its keys along by trigger.
--
--   pending   made, its record not known to be in DNS yet; never signs
--   active    signs
--   retiring  signs no more, its record stays in DNS for mail that is under way
--   retired   its record may be gone

CREATE TABLE IF NOT EXISTS dkim_keys (
	id INT NOT NULL AUTO_INCREMENT,
	domain VARCHAR(255) NOT NULL COMMENT 'A-labels, lower case',
	selector VARCHAR(128) NOT NULL,
	algorithm ENUM('rsa-sha256', 'ed25519-sha256') NOT NULL,
	private_key TEXT CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'PEM, PKCS #8',
	public_key TEXT CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'base64: the p= tag of the record',
	key_bits INT NOT NULL,
	state ENUM('pending', 'active', 'retiring', 'retired') NOT NULL DEFAULT 'pending',
	created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
	activated_at TIMESTAMP NULL DEFAULT NULL,
	retiring_at TIMESTAMP NULL DEFAULT NULL,
	retired_at TIMESTAMP NULL DEFAULT NULL,
	updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
	PRIMARY KEY (id),
	UNIQUE KEY dkim_keys_name (domain, selector),
	KEY dkim_keys_state (state, domain)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE OR REPLACE TRIGGER dkim_keys_inserted AFTER INSERT ON dkim_keys FOR EACH ROW
	UPDATE change_counters SET value = value + 1 WHERE name = 'dkim_keys';
CREATE OR REPLACE TRIGGER dkim_keys_updated AFTER UPDATE ON dkim_keys FOR EACH ROW
	UPDATE change_counters SET value = value + 1 WHERE name = 'dkim_keys';
CREATE OR REPLACE TRIGGER dkim_keys_deleted AFTER DELETE ON dkim_keys FOR EACH ROW
	UPDATE change_counters SET value = value + 1 WHERE name = 'dkim_keys';
CREATE OR REPLACE TRIGGER virtual_domains_deleted_keys AFTER DELETE ON virtual_domains FOR EACH ROW
	DELETE FROM dkim_keys WHERE domain = OLD.name;
