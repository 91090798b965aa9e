-- The index of delivered mail, written by lmtp-indexer. Times are UTC.
-- Everything hangs on virtual_users by cascade: deleting a user erases it all.

CREATE TABLE IF NOT EXISTS messages (
	id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
	user_id INT NOT NULL COMMENT 'owner of the mailbox',
	delivery_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL
		COMMENT 'of the LMTP transaction: a ULID and what Dovecot adds',
	recipient VARCHAR(320) NOT NULL COMMENT 'of the envelope',
	queue_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NULL,
	envelope_sender VARCHAR(320) NOT NULL DEFAULT '',
	message_id_header VARCHAR(998) NULL COMMENT 'without angle brackets',
	in_reply_to VARCHAR(998) NULL,
	subject VARCHAR(2000) NULL COMMENT 'decoded',
	from_display VARCHAR(320) NULL,
	from_address VARCHAR(320) NULL,
	sent_at DATETIME NULL COMMENT 'of the Date field, UTC',
	received_at DATETIME(3) NOT NULL COMMENT 'of the reply to the delivery, UTC',
	size_bytes BIGINT UNSIGNED NOT NULL,
	snippet VARCHAR(512) NOT NULL DEFAULT '',
	thread_id BIGINT UNSIGNED NULL COMMENT 'made from the Message-ID of the root as first known',
	attachment_count INT UNSIGNED NOT NULL DEFAULT 0,
	parse_state ENUM('parsed', 'partial', 'failed', 'pending') NOT NULL DEFAULT 'parsed'
		COMMENT 'failed and pending: the envelope only',
	spf_result VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NULL,
	dkim_result VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NULL,
	dmarc_result VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NULL,
	arc_result VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NULL,
	mailbox_name VARCHAR(255) NULL,
	mailbox_guid CHAR(32) CHARACTER SET ascii COLLATE ascii_bin NULL,
	uid_validity INT UNSIGNED NULL,
	uid INT UNSIGNED NULL,
	flags VARCHAR(255) NULL,
	indexed_at DATETIME(3) NOT NULL DEFAULT UTC_TIMESTAMP(3),
	deleted_at DATETIME(3) NULL COMMENT 'tombstone',
	PRIMARY KEY (id),
	UNIQUE KEY messages_delivery (delivery_id, recipient),
	KEY messages_user_time (user_id, received_at),
	KEY messages_user_header (user_id, message_id_header(190)),
	KEY messages_thread (user_id, thread_id),
	KEY messages_mailbox (mailbox_guid, uid_validity, uid),
	CONSTRAINT messages_user FOREIGN KEY (user_id) REFERENCES virtual_users (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE IF NOT EXISTS message_addresses (
	message_id BIGINT UNSIGNED NOT NULL,
	position SMALLINT UNSIGNED NOT NULL COMMENT 'over all fields, from 0',
	kind ENUM('from', 'sender', 'reply_to', 'to', 'cc', 'bcc') NOT NULL,
	address VARCHAR(320) NOT NULL,
	display VARCHAR(320) NULL COMMENT 'decoded',
	PRIMARY KEY (message_id, position),
	KEY message_addresses_address (address(120)),
	CONSTRAINT message_addresses_message FOREIGN KEY (message_id)
		REFERENCES messages (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE IF NOT EXISTS attachments (
	message_id BIGINT UNSIGNED NOT NULL,
	position SMALLINT UNSIGNED NOT NULL COMMENT 'from 0',
	name VARCHAR(512) NULL COMMENT 'decoded',
	media_type VARCHAR(255) NOT NULL,
	size_bytes BIGINT UNSIGNED NOT NULL COMMENT 'decoded',
	sha256 BINARY(32) NULL COMMENT 'of the decoded content',
	PRIMARY KEY (message_id, position),
	KEY attachments_sha256 (sha256),
	CONSTRAINT attachments_message FOREIGN KEY (message_id)
		REFERENCES messages (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

-- `terms` is what is searched: the words of subject, people, text and attachment
-- names, each once, as lmtp-indexer/tokens.h writes them (folded, CJK as bigrams,
-- and no word shorter than InnoDB's innodb_ft_min_token_size of 3), so a binary
-- collation does and costs least. Stop words are
-- off: the setting is kept with the index that is made under it.
SET SESSION innodb_ft_enable_stopword = OFF;
CREATE TABLE IF NOT EXISTS message_texts (
	message_id BIGINT UNSIGNED NOT NULL,
	user_id INT NOT NULL,
	body MEDIUMTEXT NOT NULL COMMENT 'decoded text of the message, capped',
	truncated TINYINT(1) NOT NULL DEFAULT 0,
	terms MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
	PRIMARY KEY (message_id),
	KEY message_texts_user (user_id),
	FULLTEXT KEY message_texts_terms (terms),
	CONSTRAINT message_texts_message FOREIGN KEY (message_id)
		REFERENCES messages (id) ON DELETE CASCADE,
	CONSTRAINT message_texts_user FOREIGN KEY (user_id)
		REFERENCES virtual_users (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
SET SESSION innodb_ft_enable_stopword = DEFAULT;

-- Every Message-ID that a mailbox has seen, as a message or in References and
-- In-Reply-To, and the thread that it belongs to: so a reply that comes before
-- the mail it answers finds its thread.
CREATE TABLE IF NOT EXISTS thread_refs (
	user_id INT NOT NULL,
	ref_hash BINARY(16) NOT NULL COMMENT 'of the Message-ID',
	thread_id BIGINT UNSIGNED NOT NULL,
	PRIMARY KEY (user_id, ref_hash),
	KEY thread_refs_thread (user_id, thread_id),
	CONSTRAINT thread_refs_user FOREIGN KEY (user_id) REFERENCES virtual_users (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
