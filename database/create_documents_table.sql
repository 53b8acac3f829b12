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
