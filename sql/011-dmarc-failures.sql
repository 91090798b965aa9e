-- Failures that a domain wants to be told of at once (RFC 9991), redacted when the
-- message came, and what was sent about them.

CREATE TABLE IF NOT EXISTS dmarc_failures (
	id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
	outbox_instance BIGINT UNSIGNED NOT NULL,
	outbox_seq BIGINT UNSIGNED NOT NULL,
	received_at DATETIME(3) NOT NULL COMMENT 'UTC',
	policy_domain VARCHAR(255) NOT NULL COMMENT 'where the policy was found',
	from_domain VARCHAR(255) NOT NULL COMMENT 'of the From field',
	dmarc_record TEXT NOT NULL COMMENT 'the policy record as published',
	dmarc_discovery ENUM('treewalk', 'psl') NOT NULL,
	client_ip VARCHAR(45) CHARACTER SET ascii COLLATE ascii_bin NULL,
	disposition VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
	spf_domain VARCHAR(255) NULL,
	auth_failure VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL
		COMMENT 'dmarc, bodyhash, revoked, signature or spf',
	identity_alignment VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
	sender VARCHAR(320) NOT NULL COMMENT 'redacted',
	dkim_domain VARCHAR(255) NULL,
	dkim_identity VARCHAR(320) NULL COMMENT 'redacted',
	dkim_selector VARCHAR(255) NULL,
	spf_record TEXT NULL,
	header TEXT NOT NULL COMMENT 'redacted',
	state ENUM('new', 'reported', 'left') NOT NULL DEFAULT 'new' COMMENT 'left: nobody may be told',
	PRIMARY KEY (id),
	UNIQUE KEY dmarc_failures_outbox (outbox_instance, outbox_seq),
	KEY dmarc_failures_state (state, id),
	KEY dmarc_failures_time (received_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE IF NOT EXISTS dmarc_failure_reports (
	id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
	report_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
	created_at DATETIME NOT NULL COMMENT 'UTC',
	policy_domain VARCHAR(255) NOT NULL,
	destination VARCHAR(254) NOT NULL,
	incidents INT UNSIGNED NOT NULL,
	state ENUM('sending', 'sent', 'failed') NOT NULL COMMENT 'sending: begun, and never sent again',
	error VARCHAR(255) NULL,
	PRIMARY KEY (id),
	UNIQUE KEY dmarc_failure_reports_id (report_id),
	KEY dmarc_failure_reports_time (created_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
