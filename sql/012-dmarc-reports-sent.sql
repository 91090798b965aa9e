-- What `postern dmarc report send` has sent, so that no report goes out twice.

-- One row for each report and address. A row is 'sending' from before sendmail
-- starts until its answer is known: after a crash in between nobody knows
-- whether it went, and it is not sent again unless told to.
CREATE TABLE IF NOT EXISTS dmarc_reports_sent (
	id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
	domain VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'policy domain',
	begin_at DATETIME NOT NULL COMMENT 'UTC',
	end_at DATETIME NOT NULL COMMENT 'UTC, the last second',
	report_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL
		COMMENT 'the same for all addresses of a report and when it is sent again',
	destination VARCHAR(254) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
	state ENUM('waiting', 'sending', 'sent', 'failed') NOT NULL DEFAULT 'waiting',
	attempts INT UNSIGNED NOT NULL DEFAULT 0,
	messages BIGINT UNSIGNED NOT NULL DEFAULT 0,
	records BIGINT UNSIGNED NOT NULL DEFAULT 0,
	size_bytes BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'of the compressed report',
	attempted_at DATETIME NULL COMMENT 'UTC',
	sent_at DATETIME NULL COMMENT 'UTC',
	error VARCHAR(255) NULL COMMENT 'of the last attempt',
	PRIMARY KEY (id),
	UNIQUE KEY dmarc_reports_once (domain, begin_at, destination),
	KEY dmarc_reports_day (begin_at, state)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

-- Which days have been reported; one that is begun and not finished is taken
-- up again.
CREATE TABLE IF NOT EXISTS dmarc_report_days (
	day DATE NOT NULL COMMENT 'UTC',
	begun_at DATETIME NOT NULL COMMENT 'UTC',
	finished_at DATETIME NULL COMMENT 'UTC',
	PRIMARY KEY (day)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
