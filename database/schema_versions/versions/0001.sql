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
