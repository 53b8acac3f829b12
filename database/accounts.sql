-- take_role --
-- The rest of the transaction is the tenant's.
SELECT set_config('role', %(role)s, true), set_config('search_path', %(search_path)s, true)

-- insert_user --
INSERT INTO users (name, password_hash)
VALUES (%(name)s, %(password_hash)s)
    ON CONFLICT DO NOTHING
RETURNING id

-- find_user --
SELECT id, name, password_hash IS NOT NULL AS has_password, created_at
  FROM users
 WHERE name = %(name)s

-- list_users --
SELECT id, name, password_hash IS NOT NULL AS has_password, created_at
  FROM users
 ORDER BY name

-- set_password --
UPDATE users
   SET password_hash = %(password_hash)s
 WHERE name = %(name)s
RETURNING id

-- password_of --
SELECT id, name, password_hash
  FROM users
 WHERE name = %(name)s

-- count_user --
-- What goes with a user.
SELECT (SELECT count(*) FROM chat_sessions WHERE user_id = %(user_id)s) AS conversations,
       (SELECT count(*)
          FROM chat_messages m
          JOIN chat_sessions s ON (s.tenant, s.id) = (m.tenant, m.session_id)
         WHERE s.user_id = %(user_id)s) AS messages,
       (SELECT count(*)
          FROM feedback f
          JOIN chat_messages m ON (m.tenant, m.id) = (f.tenant, f.message_id)
          JOIN chat_sessions s ON (s.tenant, s.id) = (m.tenant, m.session_id)
         WHERE s.user_id = %(user_id)s) AS feedback,
       (SELECT count(*) FROM usage_logs WHERE user_id = %(user_id)s) AS usage,
       (SELECT count(*) FROM api_keys WHERE user_id = %(user_id)s) AS keys

-- lock_user --
-- Nobody adds to what is counted and deleted: a row that refers to the user has to wait.
SELECT id FROM users WHERE name = %(name)s FOR UPDATE

-- delete_user --
-- All that refers to the user goes, too.
DELETE FROM users WHERE id = %(user_id)s

-- insert_key --
INSERT INTO api_keys (user_id, label, secret_hash, prefix, daily_tokens, requests_per_minute)
SELECT id, %(label)s, %(secret_hash)s, %(prefix)s, %(daily_tokens)s, %(requests_per_minute)s
  FROM users
 WHERE name = %(user_name)s
RETURNING id

-- list_keys --
SELECT k.id, u.name AS user_name, k.label, k.prefix, k.daily_tokens, k.requests_per_minute,
       k.created_at, k.last_used_at, k.revoked_at
  FROM api_keys k
  JOIN users u ON (u.tenant, u.id) = (k.tenant, k.user_id)
 WHERE %(id)s::uuid IS NULL OR k.id = %(id)s
 ORDER BY k.created_at, k.id

-- revoke_key --
-- Revoked once, it keeps its date.
UPDATE api_keys
   SET revoked_at = coalesce(revoked_at, now())
 WHERE id = %(id)s
RETURNING id

-- authenticate_key --
-- The key's owner and limits, and the hash to compare once more; notes the use, but not more than once a minute.
WITH used AS (
    UPDATE api_keys
       SET last_used_at = now()
     WHERE secret_hash = %(secret_hash)s
       AND revoked_at IS NULL
       AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
)
SELECT k.id AS key_id, k.secret_hash, k.daily_tokens, k.requests_per_minute, u.id AS user_id, u.name AS user_name
  FROM api_keys k
  JOIN users u ON (u.tenant, u.id) = (k.tenant, k.user_id)
 WHERE k.secret_hash = %(secret_hash)s
   AND k.revoked_at IS NULL

-- authenticate_key_on_standby --
-- The same where nothing can be noted.
SELECT k.id AS key_id, k.secret_hash, k.daily_tokens, k.requests_per_minute, u.id AS user_id, u.name AS user_name
  FROM api_keys k
  JOIN users u ON (u.tenant, u.id) = (k.tenant, k.user_id)
 WHERE k.secret_hash = %(secret_hash)s
   AND k.revoked_at IS NULL
