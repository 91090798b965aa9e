-- The search index of each user: blocks of 1,024 messages, written once when so
-- many wait (lmtp-indexer/block.h). A message that is in no block yet stands in
-- search_pending and is searched by its terms. Full-text indexes of the server
-- are shared by all users and cost more with each mail than all the rest.

CREATE TABLE IF NOT EXISTS search_blocks (
	id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
	user_id INT NOT NULL,
	first_id BIGINT UNSIGNED NOT NULL COMMENT 'lowest messages.id in it',
	last_id BIGINT UNSIGNED NOT NULL COMMENT 'highest',
	meta MEDIUMBLOB NOT NULL COMMENT 'which messages, when, with attachments or not; first words of the pages',
	created_at DATETIME(3) NOT NULL DEFAULT UTC_TIMESTAMP(3),
	PRIMARY KEY (id),
	KEY search_blocks_user (user_id, first_id),
	CONSTRAINT search_blocks_user FOREIGN KEY (user_id) REFERENCES virtual_users (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE IF NOT EXISTS search_pages (
	block_id BIGINT UNSIGNED NOT NULL,
	page SMALLINT UNSIGNED NOT NULL COMMENT 'from 0',
	words BLOB NOT NULL COMMENT 'in the order of their bytes, with the messages that have them',
	PRIMARY KEY (block_id, page),
	CONSTRAINT search_pages_block FOREIGN KEY (block_id) REFERENCES search_blocks (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE IF NOT EXISTS search_pending (
	user_id INT NOT NULL,
	message_id BIGINT UNSIGNED NOT NULL,
	PRIMARY KEY (user_id, message_id),
	CONSTRAINT search_pending_user FOREIGN KEY (user_id) REFERENCES virtual_users (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

-- `terms` lists the words of a mail, each once, with the places where it stands
-- (lmtp-indexer/terms.h). Words were filled up to three characters for the
-- server's full-text index.
ALTER TABLE message_texts DROP INDEX IF EXISTS message_texts_terms;
UPDATE message_texts SET terms = TRIM(REGEXP_REPLACE(terms, '_+( |$)', ' ')) WHERE terms LIKE '%\_ %';

ALTER TABLE messages ADD INDEX IF NOT EXISTS messages_user_folder (user_id, mailbox_name);

-- Whoever writes a text has it searched.
CREATE OR REPLACE TRIGGER message_texts_inserted AFTER INSERT ON message_texts FOR EACH ROW
	INSERT IGNORE INTO search_pending (user_id, message_id) VALUES (NEW.user_id, NEW.message_id);

-- A text that goes or changes takes its words along: its block is dropped, and
-- the others of that block wait for a new one.
CREATE OR REPLACE TRIGGER message_texts_updated AFTER UPDATE ON message_texts FOR EACH ROW
	INSERT IGNORE INTO search_pending (user_id, message_id)
		SELECT t.user_id, t.message_id FROM search_blocks b
		JOIN message_texts t ON t.user_id = b.user_id AND t.message_id BETWEEN b.first_id AND b.last_id
		WHERE NOT (NEW.terms <=> OLD.terms) AND b.user_id = OLD.user_id
		AND OLD.message_id BETWEEN b.first_id AND b.last_id;
CREATE OR REPLACE TRIGGER message_texts_updated_blocks AFTER UPDATE ON message_texts FOR EACH ROW
	FOLLOWS message_texts_updated
	DELETE FROM search_blocks WHERE NOT (NEW.terms <=> OLD.terms) AND user_id = OLD.user_id
		AND OLD.message_id BETWEEN first_id AND last_id;
CREATE OR REPLACE TRIGGER messages_deleted AFTER DELETE ON messages FOR EACH ROW
	INSERT IGNORE INTO search_pending (user_id, message_id)
		SELECT t.user_id, t.message_id FROM search_blocks b
		JOIN message_texts t ON t.user_id = b.user_id AND t.message_id BETWEEN b.first_id AND b.last_id
		WHERE b.user_id = OLD.user_id AND OLD.id BETWEEN b.first_id AND b.last_id AND t.message_id <> OLD.id;
CREATE OR REPLACE TRIGGER messages_deleted_blocks AFTER DELETE ON messages FOR EACH ROW
	FOLLOWS messages_deleted
	DELETE FROM search_blocks WHERE user_id = OLD.user_id AND OLD.id BETWEEN first_id AND last_id;
CREATE OR REPLACE TRIGGER messages_deleted_pending AFTER DELETE ON messages FOR EACH ROW
	FOLLOWS messages_deleted_blocks
	DELETE FROM search_pending WHERE user_id = OLD.user_id AND message_id = OLD.id;

-- What an earlier version has written.
INSERT IGNORE INTO search_pending (user_id, message_id)
	SELECT t.user_id, t.message_id FROM message_texts t
	WHERE NOT EXISTS (SELECT 1 FROM search_blocks b WHERE b.user_id = t.user_id
		AND t.message_id BETWEEN b.first_id AND b.last_id);
