-- What each account may do, as roles in the database that is current; run
-- again after each migration. `postern sql accounts` runs this file and then
-- makes the accounts (see README.md), each with one role as its default.
-- Only ever additive: no daemon loses a right while it runs. What a later
-- version must take back stands here as an explicit REVOKE.

CREATE ROLE IF NOT EXISTS postern_milter;
GRANT SELECT ON change_counters TO postern_milter;
GRANT SELECT ON dkim_keys TO postern_milter;
GRANT SELECT, INSERT ON auth_results TO postern_milter;
GRANT SELECT, INSERT ON dmarc_failures TO postern_milter;
GRANT SELECT, INSERT, UPDATE ON applied_batches TO postern_milter;

CREATE ROLE IF NOT EXISTS postern_policyd;
GRANT SELECT ON change_counters TO postern_policyd;
GRANT SELECT ON rate_limits TO postern_policyd;
GRANT SELECT, INSERT ON rate_events TO postern_policyd;
GRANT SELECT, INSERT, UPDATE ON applied_batches TO postern_policyd;

CREATE ROLE IF NOT EXISTS postern_indexer;
GRANT SELECT ON change_counters TO postern_indexer;
GRANT SELECT ON virtual_domains TO postern_indexer;
GRANT SELECT (id, domain_id, email, enabled) ON virtual_users TO postern_indexer;
GRANT SELECT, INSERT, UPDATE, DELETE ON messages TO postern_indexer;
GRANT SELECT, INSERT, UPDATE, DELETE ON message_addresses TO postern_indexer;
GRANT SELECT, INSERT, UPDATE, DELETE ON message_texts TO postern_indexer;
GRANT SELECT, INSERT, UPDATE, DELETE ON attachments TO postern_indexer;
GRANT SELECT, INSERT, UPDATE, DELETE ON thread_refs TO postern_indexer;
GRANT SELECT, INSERT, DELETE ON search_blocks TO postern_indexer;
GRANT SELECT, INSERT, DELETE ON search_pages TO postern_indexer;
GRANT SELECT, INSERT, DELETE ON search_pending TO postern_indexer;
GRANT SELECT, INSERT, UPDATE, DELETE ON events TO postern_indexer;
GRANT SELECT, INSERT, UPDATE, DELETE ON event_sequences TO postern_indexer;
GRANT SELECT, INSERT, UPDATE, DELETE ON webhook_deliveries TO postern_indexer;
GRANT SELECT, INSERT, UPDATE, DELETE ON mailboxes TO postern_indexer;
GRANT SELECT, INSERT, DELETE ON webhook_unsent TO postern_indexer;
GRANT SELECT, INSERT, UPDATE ON applied_batches TO postern_indexer;

CREATE ROLE IF NOT EXISTS postern_quotad;
GRANT SELECT ON change_counters TO postern_quotad;
GRANT SELECT ON virtual_domains TO postern_quotad;
GRANT SELECT ON domain_limits TO postern_quotad;
GRANT SELECT (id, domain_id, email, quota_mb, quota_messages, enabled), UPDATE (quota_mb, quota_messages)
	ON virtual_users TO postern_quotad;
GRANT SELECT, INSERT, UPDATE, DELETE ON mailbox_usage TO postern_quotad;
GRANT SELECT, INSERT, UPDATE, DELETE ON mailbox_usage_history TO postern_quotad;
GRANT SELECT, INSERT, UPDATE ON applied_batches TO postern_quotad;

-- The pipe that hands mail with reports to `postern dmarc import`.
CREATE ROLE IF NOT EXISTS postern_dmarc_import;
GRANT SELECT (id, name) ON virtual_domains TO postern_dmarc_import;
GRANT SELECT, INSERT, UPDATE ON dmarc_reports_received TO postern_dmarc_import;
GRANT INSERT ON dmarc_reports_received_rows TO postern_dmarc_import;
GRANT INSERT ON tlsrpt_reports_received TO postern_dmarc_import;
GRANT INSERT ON tlsrpt_reports_received_policies TO postern_dmarc_import;
GRANT INSERT ON tlsrpt_reports_received_failures TO postern_dmarc_import;

-- `postern dkim rotate`, run by a timer; the counter is raised by trigger.
CREATE ROLE IF NOT EXISTS postern_rotate;
GRANT SELECT, INSERT, UPDATE ON dkim_keys TO postern_rotate;
GRANT SELECT (id, name) ON virtual_domains TO postern_rotate;

-- `postern dmarc report send`, run by a timer.
CREATE ROLE IF NOT EXISTS postern_report;
GRANT SELECT, DELETE ON auth_results TO postern_report;
GRANT SELECT, INSERT, UPDATE ON dmarc_reports_sent TO postern_report;
GRANT SELECT, INSERT, UPDATE ON dmarc_report_days TO postern_report;
-- `postern dmarc failure send`, likewise.
GRANT SELECT, UPDATE, DELETE ON dmarc_failures TO postern_report;
GRANT SELECT, INSERT, UPDATE, DELETE ON dmarc_failure_reports TO postern_report;

-- Postfix and Dovecot: look up, never write.
CREATE ROLE IF NOT EXISTS postern_mailuser;
GRANT SELECT ON virtual_domains TO postern_mailuser;
GRANT SELECT ON virtual_users TO postern_mailuser;
GRANT SELECT ON virtual_aliases TO postern_mailuser;
GRANT SELECT ON mailbox_usage TO postern_mailuser;
GRANT SELECT ON mail_domains TO postern_mailuser;
GRANT SELECT ON mail_mailboxes TO postern_mailuser;
GRANT SELECT ON mail_aliases TO postern_mailuser;

-- Dashboards: no passwords, no private keys, no content of mail.
CREATE ROLE IF NOT EXISTS postern_mailreader;
GRANT SELECT ON schema_migrations TO postern_mailreader;
GRANT SELECT ON change_counters TO postern_mailreader;
GRANT SELECT ON applied_batches TO postern_mailreader;
GRANT SELECT ON virtual_domains TO postern_mailreader;
GRANT SELECT (id, domain_id, email, quota_mb, quota_messages, enabled, created_at) ON virtual_users TO postern_mailreader;
GRANT SELECT ON virtual_aliases TO postern_mailreader;
GRANT SELECT ON mailbox_usage TO postern_mailreader;
GRANT SELECT ON mailbox_usage_history TO postern_mailreader;
GRANT SELECT ON domain_limits TO postern_mailreader;
GRANT SELECT (id, domain, selector, algorithm, public_key, key_bits, state, created_at, visible_at,
	absent_until, activated_at, retiring_at, retired_at, updated_at) ON dkim_keys TO postern_mailreader;
GRANT SELECT ON rate_limits TO postern_mailreader;
GRANT SELECT ON rate_events TO postern_mailreader;
GRANT SELECT ON auth_results TO postern_mailreader;
GRANT SELECT ON dmarc_reports_received TO postern_mailreader;
GRANT SELECT ON dmarc_reports_received_rows TO postern_mailreader;
GRANT SELECT ON tlsrpt_reports_received TO postern_mailreader;
GRANT SELECT ON tlsrpt_reports_received_policies TO postern_mailreader;
GRANT SELECT ON tlsrpt_reports_received_failures TO postern_mailreader;
GRANT SELECT ON dmarc_reports_sent TO postern_mailreader;
GRANT SELECT ON dmarc_report_days TO postern_mailreader;
GRANT SELECT (id, received_at, policy_domain, from_domain, client_ip, disposition, auth_failure, identity_alignment,
	state) ON dmarc_failures TO postern_mailreader;
GRANT SELECT ON dmarc_failure_reports TO postern_mailreader;
GRANT SELECT (id, user_id, delivery_id, queue_id, sent_at, received_at, size_bytes, attachment_count,
	parse_state, spf_result, dkim_result, dmarc_result, arc_result, indexed_at, deleted_at, deleted_reason)
	ON messages TO postern_mailreader;
GRANT SELECT ON webhook_deliveries TO postern_mailreader;
GRANT SELECT ON mail_domains TO postern_mailreader;
GRANT SELECT (id, domain_id, email, storage_quota, is_active, deleted_at, created_at)
	ON mail_mailboxes TO postern_mailreader;
GRANT SELECT ON mail_aliases TO postern_mailreader;
GRANT SELECT ON mail_dns_records TO postern_mailreader;
