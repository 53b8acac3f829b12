-- Synapse's schema, version 0005: Users, their keys and passwords, conversations, feedback and usage; each row belongs to a tenant.
-- Written by deploy/write_supabase.py from the files named below; change those and run `python -m deploy.write_supabase`.

BEGIN;

-- Where Supabase has pgvector, whoever runs this.
SET LOCAL search_path = public, extensions;

-- Takes turns with others, and with `python synapse.py database upgrade`.
SELECT pg_advisory_xact_lock(hashtext('synapse schema'));
CREATE TABLE IF NOT EXISTS alembic_version (
    version_num varchar(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
DO $$
DECLARE
    found text := coalesce((SELECT version_num FROM alembic_version), 'none');
BEGIN
    IF found NOT IN ('0004', '0005') THEN
        RAISE EXCEPTION 'this migration makes schema version 0005 of version 0004, but this database is at version %', found
            USING HINT = 'Where it is newer: supabase migration repair --status applied 20261121000005';
    END IF;
END
$$;
DELETE FROM alembic_version WHERE version_num = '0004';
INSERT INTO alembic_version (version_num) VALUES ('0005') ON CONFLICT DO NOTHING;

-- database/schema_versions/versions/0005.sql

-- Users and conversations. The tenant stands first in every key and every reference, so that no row points into another's.
CREATE TABLE IF NOT EXISTS users (
    tenant text NOT NULL DEFAULT synapse_tenant(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    password_hash text,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, id),
    UNIQUE (tenant, name)
);

-- Of a key's secret only its SHA-256 is kept, and its first characters, so that people can tell keys apart.
CREATE TABLE IF NOT EXISTS api_keys (
    tenant text NOT NULL DEFAULT synapse_tenant(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    label text NOT NULL,
    secret_hash bytea NOT NULL CHECK (length(secret_hash) = 32),
    prefix text NOT NULL,
    daily_tokens bigint CHECK (daily_tokens >= 0),
    requests_per_minute integer CHECK (requests_per_minute >= 1),
    created_at timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    revoked_at timestamptz,
    PRIMARY KEY (tenant, id),
    UNIQUE (tenant, secret_hash),
    FOREIGN KEY (tenant, user_id) REFERENCES users (tenant, id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS api_keys_user_id_idx ON api_keys (tenant, user_id);

-- The number of messages also numbers them: taking the next two locks the row, so that turns at once get places of their own.
CREATE TABLE IF NOT EXISTS chat_sessions (
    tenant text NOT NULL DEFAULT synapse_tenant(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    title text NOT NULL,
    message_count integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, id),
    FOREIGN KEY (tenant, user_id) REFERENCES users (tenant, id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS chat_sessions_user_id_idx ON chat_sessions (tenant, user_id, updated_at, id);

CREATE TABLE IF NOT EXISTS chat_messages (
    tenant text NOT NULL DEFAULT synapse_tenant(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    session_id uuid NOT NULL,
    position integer NOT NULL,
    role text NOT NULL CHECK (role IN ('user', 'assistant')),
    content text NOT NULL,
    citations jsonb NOT NULL DEFAULT '[]',
    model text,
    timings_ms jsonb NOT NULL DEFAULT '{}',
    supported boolean,
    extractive boolean,
    interrupted boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, id),
    UNIQUE (tenant, session_id, position),
    FOREIGN KEY (tenant, session_id) REFERENCES chat_sessions (tenant, id) ON DELETE CASCADE
);

CREATE TABLE IF NOT EXISTS feedback (
    tenant text NOT NULL DEFAULT synapse_tenant(),
    message_id uuid NOT NULL,
    mark smallint NOT NULL CHECK (mark IN (1, -1)),
    comment text,
    given_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, message_id),
    FOREIGN KEY (tenant, message_id) REFERENCES chat_messages (tenant, id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS feedback_given_at_idx ON feedback (tenant, given_at);

-- One row per question. It outlives the conversation, as limits and sums are made from it, and says nothing of what was asked.
CREATE TABLE IF NOT EXISTS usage_logs (
    tenant text NOT NULL DEFAULT synapse_tenant(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    at timestamptz NOT NULL DEFAULT now(),
    user_id uuid NOT NULL,
    key_id uuid,
    kind text NOT NULL,
    model text,
    tokens_in bigint NOT NULL DEFAULT 0 CHECK (tokens_in >= 0),
    tokens_out bigint NOT NULL DEFAULT 0 CHECK (tokens_out >= 0),
    tokens_estimated boolean NOT NULL DEFAULT false,
    supported boolean,
    interrupted boolean NOT NULL DEFAULT false,
    milliseconds double precision,
    PRIMARY KEY (tenant, id),
    FOREIGN KEY (tenant, user_id) REFERENCES users (tenant, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant, key_id) REFERENCES api_keys (tenant, id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS usage_logs_at_idx ON usage_logs (tenant, at);
CREATE INDEX IF NOT EXISTS usage_logs_user_id_idx ON usage_logs (tenant, user_id, at);
CREATE INDEX IF NOT EXISTS usage_logs_key_id_idx ON usage_logs (tenant, key_id, at);

DO $$
DECLARE
    table_name text;
    role_name text;
BEGIN
    FOREACH table_name IN ARRAY
        ARRAY['users', 'api_keys', 'chat_sessions', 'chat_messages', 'feedback', 'usage_logs']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', table_name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', table_name);
        EXECUTE format('DROP POLICY IF EXISTS synapse_tenant_rows ON %I', table_name);
        EXECUTE format(
            'CREATE POLICY synapse_tenant_rows ON %I USING (tenant = synapse_tenant()) WITH CHECK (tenant = synapse_tenant())',
            table_name
        );
        EXECUTE format('REVOKE ALL ON %I FROM PUBLIC', table_name);
        FOR role_name IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated') LOOP
            EXECUTE format('REVOKE ALL ON %I FROM %I', table_name, role_name);
        END LOOP;
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'synapse_tenant') THEN
            EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO synapse_tenant', table_name);
        END IF;
    END LOOP;
END
$$;

COMMIT;
