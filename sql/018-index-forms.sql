-- The table once had a full-text index. What InnoDB kept for it, a hidden column
-- with an index of its own and tables beside, goes only with a copy.
ALTER TABLE message_texts ALGORITHM=COPY, FORCE;

-- As long as the key of an event, with the letters that stand before it.
ALTER TABLE webhook_deliveries
	MODIFY webhook_id VARCHAR(140) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'the webhook-id header';
