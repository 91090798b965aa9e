-- One row for each message that milter-dkim judged or signed: the source of
-- DMARC reports and of the administrator's statistics.

CREATE TABLE IF NOT EXISTS auth_results (
	id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
	outbox_instance BIGINT UNSIGNED NOT NULL,
	outbox_seq BIGINT UNSIGNED NOT NULL,
	received_at DATETIME(3) NOT NULL COMMENT 'UTC',
	direction ENUM('verified', 'signed') NOT NULL,
	queue_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NULL,
	client_ip VARCHAR(45) CHARACTER SET ascii COLLATE ascii_bin NULL,
	helo VARCHAR(255) NULL,
	envelope_sender VARCHAR(320) NULL,
	account VARCHAR(255) NULL,
	message_id_header VARCHAR(998) NULL,
	from_domain VARCHAR(255) NULL COMMENT 'of the From field',
	spf_result VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NULL,
	spf_domain VARCHAR(255) NULL,
	spf_scope VARCHAR(8) CHARACTER SET ascii COLLATE ascii_bin NULL COMMENT 'mfrom or helo',
	dkim_result VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NULL COMMENT 'the best of all signatures',
	dkim_signatures LONGTEXT NULL COMMENT 'JSON: [{domain, selector, algorithm, result, reason}]'
		CHECK (dkim_signatures IS NULL OR JSON_VALID(dkim_signatures)),
	arc_result VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NULL,
	dmarc_result VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NULL,
	dmarc_domain VARCHAR(255) NULL COMMENT 'where the policy was found',
	dmarc_policy VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NULL,
	dmarc_aligned_dkim TINYINT(1) NULL,
	dmarc_aligned_spf TINYINT(1) NULL,
	disposition VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NULL COMMENT 'none, quarantine or reject: what was done',
	override_reason VARCHAR(255) NULL,
	PRIMARY KEY (id),
	UNIQUE KEY auth_results_outbox (outbox_instance, outbox_seq),
	KEY auth_results_time (received_at),
	KEY auth_results_domain (dmarc_domain, received_at),
	KEY auth_results_from (from_domain, received_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
