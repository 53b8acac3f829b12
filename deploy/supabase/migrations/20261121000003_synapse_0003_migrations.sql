-- Synapse's schema, version 0003: What migrations made, and how far they are.
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
    IF found NOT IN ('0002', '0003') THEN
        RAISE EXCEPTION 'this migration makes schema version 0003 of version 0002, but this database is at version %', found
            USING HINT = 'Where it is newer: supabase migration repair --status applied 20261121000003';
    END IF;
END
$$;
DELETE FROM alembic_version WHERE version_num = '0002';
INSERT INTO alembic_version (version_num) VALUES ('0003') ON CONFLICT DO NOTHING;

-- database/schema_versions/versions/0003.sql

-- Migrations: what each run made, and how far it is. A run is told from others by its source's fingerprint and its targets.
CREATE TABLE IF NOT EXISTS migration_runs (
    id text PRIMARY KEY,
    source_kind text NOT NULL,
    source text NOT NULL,
    fingerprint text NOT NULL,
    options jsonb NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    attempts integer NOT NULL DEFAULT 1,
    receipt jsonb
);

-- One row per part of the source and table: the position moves in the transaction that writes the batch before it.
CREATE TABLE IF NOT EXISTS migration_parts (
    run text NOT NULL REFERENCES migration_runs ON DELETE CASCADE,
    part text NOT NULL,
    name text NOT NULL,
    table_name text NOT NULL,
    created_model text,
    switched_from text,
    position jsonb,
    inserted bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (run, part)
);

-- Documents that a run put into a table that it did not make, and, as they were, those that it replaced or left as they were.
CREATE TABLE IF NOT EXISTS migration_rows (
    run text NOT NULL REFERENCES migration_runs ON DELETE CASCADE,
    table_name text NOT NULL,
    document_id varchar(128) NOT NULL,
    original jsonb,
    PRIMARY KEY (run, table_name, document_id)
);
DO $$
DECLARE
    table_name text;
    role_name text;
BEGIN
    FOREACH table_name IN ARRAY ARRAY['migration_runs', 'migration_parts', 'migration_rows'] LOOP
        EXECUTE format('REVOKE ALL ON %I FROM PUBLIC', table_name);
        FOR role_name IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated') LOOP
            EXECUTE format('REVOKE ALL ON %I FROM %I', table_name, role_name);
        END LOOP;
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'synapse_app') THEN
            EXECUTE format('GRANT SELECT ON %I TO synapse_app', table_name);
        END IF;
    END LOOP;
END
$$;

COMMIT;
