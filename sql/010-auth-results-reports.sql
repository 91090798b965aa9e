-- What DMARC reports (RFC 9990, RFC 9991) need to know of a message beyond its
-- verdicts, as it was when the message came.

ALTER TABLE auth_results
	ADD COLUMN IF NOT EXISTS dmarc_record TEXT NULL COMMENT 'the policy record as published',
	ADD COLUMN IF NOT EXISTS dmarc_discovery ENUM('treewalk', 'psl') NULL,
	ADD COLUMN IF NOT EXISTS dmarc_applied VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NULL
		COMMENT 'the policy that governs, after t=y',
	ADD COLUMN IF NOT EXISTS override_type VARCHAR(24) CHARACTER SET ascii COLLATE ascii_bin NULL
		COMMENT 'reason of RFC 9990: local_policy, mailing_list, other, policy_test_mode, trusted_forwarder';
