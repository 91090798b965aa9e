-- The index follows the mailbox: where each message lies, and how far each
-- mailbox has been compared.

ALTER TABLE messages
	ADD COLUMN IF NOT EXISTS mail_guid BINARY(16) NULL COMMENT 'of the mail GUID, which copies share',
	ADD COLUMN IF NOT EXISTS deleted_reason ENUM('expunged', 'mailbox_deleted', 'not_stored') NULL
		COMMENT 'of deleted_at; not_stored: accepted, and in no mailbox (Sieve discard, redirect)';
-- A live mail has one row; so has, for ever, each UID of a mailbox.
ALTER TABLE messages
	ADD UNIQUE KEY IF NOT EXISTS messages_place (user_id, mailbox_guid, uid_validity, uid),
	DROP KEY IF EXISTS messages_mailbox;

CREATE TABLE IF NOT EXISTS mailboxes (
	user_id INT NOT NULL,
	mailbox_guid CHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
	name VARCHAR(255) NOT NULL,
	uid_validity INT UNSIGNED NOT NULL,
	uid_next INT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'as last compared; what has come since is new',
	message_count INT UNSIGNED NOT NULL DEFAULT 0,
	highest_modseq BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT '0: not yet compared to the end',
	backfill TINYINT(1) NOT NULL DEFAULT 0 COMMENT 'mail that was there before is being added, without events',
	updated_at DATETIME(3) NOT NULL DEFAULT UTC_TIMESTAMP(3),
	PRIMARY KEY (user_id, mailbox_guid),
	CONSTRAINT mailboxes_user FOREIGN KEY (user_id) REFERENCES virtual_users (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

-- Events that are committed and not yet handed to the webhooks' own queue.
CREATE TABLE IF NOT EXISTS webhook_unsent (
	user_id INT NOT NULL,
	first_seq BIGINT UNSIGNED NOT NULL,
	last_seq BIGINT UNSIGNED NOT NULL,
	PRIMARY KEY (user_id, first_seq),
	CONSTRAINT webhook_unsent_user FOREIGN KEY (user_id) REFERENCES virtual_users (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
