-- What the rotation of signing keys (`postern dkim rotate`) must remember of a
-- pending key between its runs.

ALTER TABLE dkim_keys
	ADD COLUMN IF NOT EXISTS visible_at TIMESTAMP NULL DEFAULT NULL
		COMMENT 'since when its record is seen in DNS, without a break' AFTER created_at,
	ADD COLUMN IF NOT EXISTS absent_until TIMESTAMP NULL DEFAULT NULL
		COMMENT 'until when resolvers may still remember that the record was not there' AFTER visible_at;
