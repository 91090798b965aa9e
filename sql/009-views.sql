-- The second schema, as another panel names things. What is not in the
-- canonical tables any more is gone (a removal erases), and a domain is
-- entered once it is verified, so is_verified and deleted_at follow from the
-- row being there; is_active is virtual_users.enabled, and an alias is active
-- unless it leads to nothing but a disabled mailbox of ours.
-- SQL SECURITY INVOKER: an account sees no more here than in the tables. Only
-- mail_mailboxes runs with its definer's rights, as it mentions the password
-- hash: so a dashboard may be granted its other columns.

CREATE OR REPLACE SQL SECURITY INVOKER VIEW mail_domains AS
	SELECT d.id, d.name AS domain_name, 1 AS is_verified,
		CAST(NULL AS DATETIME) AS deleted_at, d.created_at
	FROM virtual_domains d;

CREATE OR REPLACE SQL SECURITY DEFINER VIEW mail_mailboxes AS
	SELECT u.id, u.domain_id, u.email, u.password AS password_hash, u.quota_mb AS storage_quota,
		u.enabled AS is_active, CAST(NULL AS DATETIME) AS deleted_at, u.created_at
	FROM virtual_users u;

CREATE OR REPLACE SQL SECURITY INVOKER VIEW mail_aliases AS
	SELECT a.id, a.domain_id, a.source AS alias_email, a.destination AS destination_email,
		IF(u.id IS NULL OR u.enabled, 1, 0) AS is_active, a.created_at
	FROM virtual_aliases a LEFT JOIN virtual_users u ON u.email = a.destination;

-- Without the private keys.
CREATE OR REPLACE SQL SECURITY INVOKER VIEW mail_dns_records AS
	SELECT k.id, k.domain AS domain_name, 'TXT' AS record_type,
		CONCAT(k.selector, '._domainkey.', k.domain) AS record_name,
		CONCAT('v=DKIM1; k=', IF(k.algorithm = 'ed25519-sha256', 'ed25519', 'rsa'), '; p=', k.public_key)
			AS record_value,
		k.selector AS dkim_selector, k.public_key AS dkim_public_key,
		k.state, IF(k.state = 'active', 1, 0) AS is_active, k.created_at
	FROM dkim_keys k WHERE k.state <> 'retired';
