-- The whole schema at version 0001: for the first start of Docker's image, and for people who read.
-- Written by deploy/write_init_sql.py from the files in database/; change those and run `make init-sql`.
-- Harmless on a database at this version; a database at any other version is refused and left as it is.

BEGIN;

-- Two first starts take turns, and with `database upgrade`, too.
SELECT pg_advisory_xact_lock(hashtext('synapse schema'));

CREATE TABLE IF NOT EXISTS alembic_version (
    version_num varchar(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
DO $$
DECLARE
    other text;
BEGIN
    SELECT version_num INTO other FROM alembic_version WHERE version_num <> '0001';
    IF FOUND THEN
        RAISE EXCEPTION 'init.sql makes schema version 0001, but this database is at version %', other
            USING HINT = 'Run `python synapse.py database upgrade` instead.';
    END IF;
END
$$;
INSERT INTO alembic_version (version_num) VALUES ('0001') ON CONFLICT DO NOTHING;

-- database/filter_functions.sql

-- What the filter translator calls. Immutable, so that they may be indexed, and never raising, whatever metadata holds.

-- The instant that a JSON string names, or NULL: ISO 8601 with a full date, as haystack.utils.filters reads it.
-- `zone` is the offset of the filter's own date. With one, the result is in UTC, and text without an offset counts as being
-- in the filter's. Without one (NULL), the result is the text's wall clock, whatever its offset.
CREATE OR REPLACE FUNCTION synapse_instant(value jsonb, zone interval) RETURNS timestamp
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    part text[];
    year int;
    month int;
    day int;
    hour int;
    minute int;
    second int;
    fraction text;
    shift interval;
    wall_clock timestamp;
BEGIN
    IF jsonb_typeof(value) IS DISTINCT FROM 'string' THEN
        RETURN NULL;
    END IF;
    -- 1-3 date; 4 hour, then 5-7 minute, second, fraction with colons or 8-10 without; 11 Z; 12-13 sign and hours of the
    -- offset, then 14-16 its minutes, seconds, fraction with colons or 17-19 without
    part := regexp_match(value #>> '{}',
        '^([0-9]{4})-([0-9]{2})-([0-9]{2})'
        '(?:[Tt ]([0-9]{2})'
        '(?::([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]+))?)?|([0-9]{2})(?:([0-9]{2})(?:[.,]([0-9]+))?)?)?'
        '(?: ?(?:([Zz])|([+-])([0-9]{2})'
        '(?::([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]+))?)?|([0-9]{2})(?:([0-9]{2})(?:[.,]([0-9]+))?)?)?))?)?$');
    IF part IS NULL THEN
        RETURN NULL;
    END IF;
    year := part[1];
    month := part[2];
    day := part[3];
    hour := coalesce(part[4], '0');
    minute := coalesce(part[5], part[8], '0');
    second := coalesce(part[6], part[9], '0');
    fraction := rpad(left(coalesce(part[7], part[10], '0'), 6), 6, '0');
    IF year < 1 OR month NOT BETWEEN 1 AND 12 OR day < 1 OR hour > 24 OR minute > 59 OR second > 59
        OR day > (CASE WHEN month IN (4, 6, 9, 11) THEN 30
                       WHEN month <> 2 THEN 31
                       WHEN year % 4 = 0 AND (year % 100 <> 0 OR year % 400 = 0) THEN 29
                       ELSE 28 END)
    THEN
        RETURN NULL;
    END IF;
    -- 24:00 is the end of the day; Python knows no day after its last, and no such time with seconds in the offset.
    IF hour = 24 AND (minute > 0 OR second > 0 OR fraction <> '000000' OR part[15] IS NOT NULL OR part[18] IS NOT NULL
                      OR (year = 9999 AND month = 12 AND day = 31))
    THEN
        RETURN NULL;
    END IF;
    wall_clock := make_date(year, month, day)
        + make_interval(hours => hour, mins => minute, secs => second)
        + fraction::int * interval '1 microsecond';
    IF part[12] IS NOT NULL THEN
        shift := make_interval(hours => part[13]::int,
                               mins => coalesce(part[14], part[17], '0')::int,
                               secs => coalesce(part[15], part[18], '0')::int)
            + rpad(left(coalesce(part[16], part[19], '0'), 6), 6, '0')::int * interval '1 microsecond';
        IF shift >= interval '24 hours' THEN
            RETURN NULL;
        END IF;
        shift := CASE part[12] WHEN '-' THEN -shift ELSE shift END;
    ELSIF part[11] IS NOT NULL THEN
        shift := interval '0';
    END IF;
    RETURN wall_clock - coalesce(CASE WHEN zone IS NOT NULL THEN coalesce(shift, zone) END, interval '0');
END
$$;

-- The value as Python compares it: true is 1 and false is 0, at any depth.
CREATE OR REPLACE FUNCTION synapse_comparable(value jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    RETURN CASE
        WHEN jsonb_typeof(value) = 'boolean' THEN to_jsonb(value::boolean::int)
        WHEN jsonb_typeof(value) = 'array' THEN
            (SELECT coalesce(jsonb_agg(synapse_comparable(item) ORDER BY place), '[]')
               FROM jsonb_array_elements(value) WITH ORDINALITY AS items (item, place))
        WHEN jsonb_typeof(value) = 'object' THEN
            (SELECT coalesce(jsonb_object_agg(key, synapse_comparable(item)), '{}')
               FROM jsonb_each(value) AS items (key, item))
        ELSE value
    END;
END
$$;

-- database/create_documents_table.sql

-- One table of documents per embedding model, in exactly pgvector-haystack's layout, with its two indexes.
-- Called by the schema versions, by init.sql, by `models add` and by SynapseDocumentStore.create_table().
CREATE OR REPLACE FUNCTION synapse_create_documents_table(
    table_name text,
    dimension integer,
    vector_type text DEFAULT 'vector',
    language text DEFAULT 'english',
    m integer DEFAULT 16,
    ef_construction integer DEFAULT 64
) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    most integer := CASE vector_type WHEN 'vector' THEN 2000 WHEN 'halfvec' THEN 4000 END;
    role_name text;
BEGIN
    IF most IS NULL THEN
        RAISE EXCEPTION 'vector_type must be vector or halfvec, but is %', vector_type USING ERRCODE = '22023';
    END IF;
    IF dimension NOT BETWEEN 1 AND most THEN
        RAISE EXCEPTION 'an HNSW index on % takes 1 to % dimensions, but the model gives %', vector_type, most, dimension
            USING ERRCODE = '22023';
    END IF;
    IF length(table_name) NOT BETWEEN 1 AND 48 THEN
        RAISE EXCEPTION 'a documents table''s name has 1 to 48 characters, but % has %', table_name, length(table_name)
            USING ERRCODE = '22023';
    END IF;

    EXECUTE format(
        'CREATE TABLE IF NOT EXISTS %I (
            id varchar(128) PRIMARY KEY,
            embedding %s(%s),
            content text,
            blob_data bytea,
            blob_meta jsonb,
            blob_mime_type varchar(255),
            meta jsonb
        )', table_name, vector_type, dimension);
    -- In line, an exact scan reads vectors four times as fast as from TOAST; a page must still hold a row.
    IF dimension * (CASE vector_type WHEN 'vector' THEN 4 ELSE 2 END) <= 4096 THEN
        EXECUTE format('ALTER TABLE %I ALTER COLUMN embedding SET STORAGE PLAIN', table_name);
    END IF;
    EXECUTE format(
        'CREATE INDEX IF NOT EXISTS %I ON %I USING hnsw (embedding %s_cosine_ops) WITH (m = %s, ef_construction = %s)',
        table_name || '_hnsw_index', table_name, vector_type, m, ef_construction);
    -- Each word of a question would read the whole list of pending entries: up to 4 MB, 2 ms and more.
    EXECUTE format(
        'CREATE INDEX IF NOT EXISTS %I ON %I USING gin (to_tsvector(%L, content)) WITH (fastupdate = off)',
        table_name || '_keyword_index', table_name, language);

    EXECUTE format('REVOKE ALL ON %I FROM PUBLIC', table_name);
    FOR role_name IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated') LOOP
        EXECUTE format('REVOKE ALL ON %I FROM %I', table_name, role_name);
    END LOOP;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'synapse_app') THEN
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON %I TO synapse_app', table_name);
    END IF;
END
$$;

-- database/schema_versions/versions/0001.sql

CREATE EXTENSION IF NOT EXISTS vector;

-- The application role reads and writes; it does not own, so that row-level security binds it.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'synapse_app') THEN
        CREATE ROLE synapse_app NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE;
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'synapse_app is not made: this user may not create roles; the application connects as the owner';
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;

-- One row per embedding model; questions go to the active one.
CREATE TABLE IF NOT EXISTS embedding_models (
    name text PRIMARY KEY,
    model text NOT NULL,
    dimension integer NOT NULL CHECK (dimension > 0),
    vector_type text NOT NULL DEFAULT 'vector' CHECK (vector_type IN ('vector', 'halfvec')),
    language text NOT NULL DEFAULT 'english',
    table_name text NOT NULL UNIQUE,
    active boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX IF NOT EXISTS embedding_models_one_active ON embedding_models (active) WHERE active;

-- The ledger: what each source looked like when its chunks were written. A reason means that it is quarantined.
CREATE TABLE IF NOT EXISTS sources (
    model text NOT NULL REFERENCES embedding_models (name),
    source text NOT NULL,
    root text NOT NULL,
    size bigint NOT NULL,
    mtime_ns bigint NOT NULL,
    checked_at_ns bigint NOT NULL,
    content_hash text NOT NULL,
    meta_hash text NOT NULL,
    fingerprint text NOT NULL,
    reason text,
    title text,
    mime_type text,
    chunks integer NOT NULL DEFAULT 0,
    indexed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (model, source)
);

-- Converted text, so that a citation can be opened at its place.
CREATE TABLE IF NOT EXISTS source_texts (
    model text NOT NULL,
    source text NOT NULL,
    text text NOT NULL,
    PRIMARY KEY (model, source),
    FOREIGN KEY (model, source) REFERENCES sources ON UPDATE CASCADE ON DELETE CASCADE
);

-- Which documents are a source's chunks, in reading order.
CREATE TABLE IF NOT EXISTS source_chunks (
    model text NOT NULL,
    document_id varchar(128) NOT NULL,
    source text NOT NULL,
    position integer NOT NULL,
    PRIMARY KEY (model, document_id),
    FOREIGN KEY (model, source) REFERENCES sources ON UPDATE CASCADE ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS source_chunks_by_source ON source_chunks (model, source, position);

-- Closed to everyone, Supabase's API roles included, but the application role.
DO $$
DECLARE
    table_name text;
    role_name text;
BEGIN
    FOREACH table_name IN ARRAY ARRAY['alembic_version', 'embedding_models', 'sources', 'source_texts', 'source_chunks'] LOOP
        EXECUTE format('REVOKE ALL ON %I FROM PUBLIC', table_name);
        FOR role_name IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated') LOOP
            EXECUTE format('REVOKE ALL ON %I FROM %I', table_name, role_name);
        END LOOP;
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'synapse_app') THEN
            EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO synapse_app', table_name);
        END IF;
    END LOOP;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'synapse_app') THEN
        REVOKE INSERT, UPDATE, DELETE ON alembic_version, embedding_models FROM synapse_app;
    END IF;
END
$$;

-- The default model, where there is none yet.
SELECT synapse_create_documents_table('documents_all_minilm_l6_v2', 384)
 WHERE NOT EXISTS (SELECT FROM embedding_models);
INSERT INTO embedding_models (name, model, dimension, table_name, active)
SELECT 'all-minilm-l6-v2', 'sentence-transformers/all-MiniLM-L6-v2', 384, 'documents_all_minilm_l6_v2', true
 WHERE NOT EXISTS (SELECT FROM embedding_models);

COMMIT;
