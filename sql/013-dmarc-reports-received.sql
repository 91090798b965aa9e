-- Reports that others have sent us about mail in the name of our domains:
-- DMARC aggregate reports (RFC 9990, RFC 7489) and TLS reports (RFC 8460).
-- Written by `postern dmarc import`, a file in one transaction.  What stands
-- here is what others claim; nobody has checked it.

CREATE TABLE IF NOT EXISTS dmarc_reports_received (
	id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
	domain VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL
		COMMENT 'of the policy; A-labels, lower case',
	begin_at DATETIME NOT NULL COMMENT 'UTC',
	end_at DATETIME NOT NULL COMMENT 'UTC',
	org_name VARCHAR(255) COLLATE utf8mb4_bin NOT NULL COMMENT 'who reports',
	report_id VARCHAR(255) COLLATE utf8mb4_bin NOT NULL,
	email VARCHAR(255) NULL,
	extra_contact VARCHAR(1024) NULL,
	generator VARCHAR(1024) NULL,
	xmlns VARCHAR(255) NULL,
	version VARCHAR(255) NULL,
	errors LONGTEXT NULL COMMENT 'JSON: texts' CHECK (errors IS NULL OR JSON_VALID(errors)),
	discovery_method VARCHAR(255) NULL COMMENT 'treewalk or psl',
	p VARCHAR(255) NULL COMMENT 'this and the next: the policy as the reporter saw it',
	sp VARCHAR(255) NULL,
	np VARCHAR(255) NULL,
	adkim VARCHAR(255) NULL,
	aspf VARCHAR(255) NULL,
	fo VARCHAR(255) NULL,
	testing VARCHAR(255) NULL,
	pct TINYINT UNSIGNED NULL,
	records INT UNSIGNED NOT NULL DEFAULT 0,
	messages BIGINT UNSIGNED NOT NULL DEFAULT 0,
	passed BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'messages with an aligned pass of DKIM or SPF',
	dkim_aligned BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'messages',
	spf_aligned BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'messages',
	deviations BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'places that do not follow the RFCs',
	ours TINYINT(1) NOT NULL COMMENT 'the domain was hosted here when it was imported',
	file VARCHAR(1024) NULL COMMENT 'attachment or member that it came in',
	imported_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
	PRIMARY KEY (id),
	UNIQUE KEY dmarc_reports_received_identity (domain, begin_at, org_name, report_id),
	KEY dmarc_reports_received_begin (begin_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE IF NOT EXISTS dmarc_reports_received_rows (
	report BIGINT UNSIGNED NOT NULL,
	position INT UNSIGNED NOT NULL COMMENT 'of the record in the report, from 1',
	source_ip VARCHAR(45) CHARACTER SET ascii COLLATE ascii_bin NULL,
	messages INT UNSIGNED NOT NULL,
	disposition VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NULL
		COMMENT 'none, pass, quarantine or reject; NULL where the report says something else',
	dkim_aligned TINYINT(1) NOT NULL COMMENT 'an aligned signature has passed',
	spf_aligned TINYINT(1) NOT NULL,
	let_pass TINYINT(1) NOT NULL
		COMMENT 'a reason tells that the receiver would not apply a policy: a forwarder, a list, local policy',
	header_from VARCHAR(255) NULL,
	envelope_from VARCHAR(255) NULL,
	envelope_to VARCHAR(255) NULL,
	reasons LONGTEXT NULL COMMENT 'JSON: [{type, comment}]'
		CHECK (reasons IS NULL OR JSON_VALID(reasons)),
	dkim_results LONGTEXT NULL COMMENT 'JSON: [{domain, selector, result, human_result}]'
		CHECK (dkim_results IS NULL OR JSON_VALID(dkim_results)),
	spf_results LONGTEXT NULL COMMENT 'JSON: [{domain, scope, result, human_result}]'
		CHECK (spf_results IS NULL OR JSON_VALID(spf_results)),
	PRIMARY KEY (report, position),
	KEY dmarc_reports_received_rows_sums (report, source_ip, dkim_aligned, spf_aligned, disposition, let_pass,
		messages),
	CONSTRAINT dmarc_reports_received_rows_report FOREIGN KEY (report)
		REFERENCES dmarc_reports_received (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE IF NOT EXISTS tlsrpt_reports_received (
	id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
	begin_at DATETIME NOT NULL COMMENT 'UTC',
	end_at DATETIME NOT NULL COMMENT 'UTC',
	org_name VARCHAR(255) COLLATE utf8mb4_bin NOT NULL,
	report_id VARCHAR(255) COLLATE utf8mb4_bin NOT NULL,
	contact VARCHAR(1024) NULL,
	ours TINYINT(1) NOT NULL COMMENT 'one of its domains was hosted here when it was imported',
	file VARCHAR(1024) NULL,
	imported_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
	PRIMARY KEY (id),
	UNIQUE KEY tlsrpt_reports_received_identity (begin_at, org_name, report_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE IF NOT EXISTS tlsrpt_reports_received_policies (
	report BIGINT UNSIGNED NOT NULL,
	position INT UNSIGNED NOT NULL COMMENT 'of the policy in the report, from 1',
	domain VARCHAR(255) NOT NULL,
	policy_type VARCHAR(255) NULL COMMENT 'tlsa, sts or no-policy-found',
	policy_strings LONGTEXT NULL COMMENT 'JSON: texts'
		CHECK (policy_strings IS NULL OR JSON_VALID(policy_strings)),
	mx_hosts LONGTEXT NULL COMMENT 'JSON: texts' CHECK (mx_hosts IS NULL OR JSON_VALID(mx_hosts)),
	successful BIGINT UNSIGNED NOT NULL COMMENT 'sessions',
	failed BIGINT UNSIGNED NOT NULL COMMENT 'sessions',
	PRIMARY KEY (report, position),
	KEY tlsrpt_reports_received_policies_domain (domain),
	CONSTRAINT tlsrpt_reports_received_policies_report FOREIGN KEY (report)
		REFERENCES tlsrpt_reports_received (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE IF NOT EXISTS tlsrpt_reports_received_failures (
	report BIGINT UNSIGNED NOT NULL,
	policy INT UNSIGNED NOT NULL COMMENT 'position of the policy',
	position INT UNSIGNED NOT NULL COMMENT 'within the policy, from 1',
	result_type VARCHAR(255) NULL,
	sending_mta_ip VARCHAR(255) NULL,
	receiving_mx_hostname VARCHAR(255) NULL,
	receiving_mx_helo VARCHAR(255) NULL,
	receiving_ip VARCHAR(255) NULL,
	sessions BIGINT UNSIGNED NOT NULL,
	additional_information VARCHAR(1024) NULL,
	reason_code VARCHAR(1024) NULL,
	PRIMARY KEY (report, policy, position),
	CONSTRAINT tlsrpt_reports_received_failures_policy FOREIGN KEY (report, policy)
		REFERENCES tlsrpt_reports_received_policies (report, position) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
