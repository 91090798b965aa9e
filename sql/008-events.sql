-- The ordered feed: each user has an own sequence without gaps, so a client
-- resumes from the last number that it saw. event_key makes a repeated batch
-- harmless.

CREATE TABLE IF NOT EXISTS event_sequences (
	user_id INT NOT NULL,
	last_seq BIGINT UNSIGNED NOT NULL DEFAULT 0,
	PRIMARY KEY (user_id),
	CONSTRAINT event_sequences_user FOREIGN KEY (user_id) REFERENCES virtual_users (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE IF NOT EXISTS events (
	user_id INT NOT NULL,
	seq BIGINT UNSIGNED NOT NULL,
	event_key VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL
		COMMENT 'unique for each user: what happened to what',
	type VARCHAR(48) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'message.received, ...',
	message_id BIGINT UNSIGNED NULL,
	payload LONGTEXT NOT NULL CHECK (JSON_VALID(payload)),
	created_at DATETIME(3) NOT NULL DEFAULT UTC_TIMESTAMP(3),
	PRIMARY KEY (user_id, seq),
	UNIQUE KEY events_key (user_id, event_key),
	KEY events_time (created_at),
	KEY events_message (message_id),
	CONSTRAINT events_user FOREIGN KEY (user_id) REFERENCES virtual_users (id) ON DELETE CASCADE,
	CONSTRAINT events_message FOREIGN KEY (message_id) REFERENCES messages (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

-- What became of each event's webhook.
CREATE TABLE IF NOT EXISTS webhook_deliveries (
	user_id INT NOT NULL,
	webhook_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'the webhook-id header',
	event_key VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
	state ENUM('pending', 'delivered', 'dead') NOT NULL,
	attempts INT UNSIGNED NOT NULL DEFAULT 0,
	status_code SMALLINT UNSIGNED NULL COMMENT 'of the last answer',
	error VARCHAR(255) NULL,
	updated_at DATETIME(3) NOT NULL DEFAULT UTC_TIMESTAMP(3),
	PRIMARY KEY (webhook_id),
	KEY webhook_deliveries_event (user_id, event_key),
	KEY webhook_deliveries_state (state, updated_at),
	CONSTRAINT webhook_deliveries_user FOREIGN KEY (user_id)
		REFERENCES virtual_users (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
