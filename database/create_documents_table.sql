-- One table of documents per embedding model, in exactly pgvector-haystack's layout, with its index and its keyword tables.
-- Brings a table that is there already, made by a plain store or an earlier version, to the same state.
-- Called by the schema versions, by init.sql, by `models add` and by SynapseDocumentStore.create_table().
-- A new table may be cut into partitions by hash of id, each with an index of its own; a table that is there stays as it is cut.
DROP FUNCTION IF EXISTS synapse_create_documents_table(text, integer, text, text, integer, integer);  -- before partitions
CREATE OR REPLACE FUNCTION synapse_create_documents_table(
    table_name text,
    dimension integer,
    vector_type text DEFAULT 'vector',
    language text DEFAULT 'english',
    m integer DEFAULT 8,
    ef_construction integer DEFAULT 48,
    partitions integer DEFAULT 1
) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    most integer := CASE vector_type WHEN 'vector' THEN 2000 WHEN 'halfvec' THEN 4000 END;
    place text := current_schema();  -- what is dropped is named in full: the path goes on to other schemas
    is_new boolean := to_regclass(format('%I.%I', place, table_name)) IS NULL;
    name text;
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
    IF partitions NOT BETWEEN 1 AND 1024 THEN
        RAISE EXCEPTION 'a documents table has 1 to 1024 partitions, but % were asked for', partitions USING ERRCODE = '22023';
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
        ) %s', table_name, vector_type, dimension, CASE WHEN partitions > 1 THEN 'PARTITION BY HASH (id)' ELSE '' END);
    -- In line, an exact scan reads vectors four times as fast as from TOAST; a page must still hold a row. Nothing here locks a
    -- table that is complete: an upgrade passes by tables that are in use.
    IF dimension * (CASE vector_type WHEN 'vector' THEN 4 ELSE 2 END) <= 4096
       AND NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = format('%I.%I', place, table_name)::regclass
                          AND attname = 'embedding' AND attstorage = 'p') THEN
        EXECUTE format('ALTER TABLE %I ALTER COLUMN embedding SET STORAGE PLAIN', table_name);
    END IF;
    -- Reached through the table alone: nobody is given a right on a partition, and row-level security is on there without a policy.
    FOR number IN 0 .. CASE WHEN is_new AND partitions > 1 THEN partitions - 1 ELSE -1 END LOOP
        name := table_name || '_p' || number;
        EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES WITH (MODULUS %s, REMAINDER %s)',
                       name, table_name, partitions, number);
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('REVOKE ALL ON %I FROM PUBLIC', name);
        FOR role_name IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated', 'synapse_app') LOOP
            EXECUTE format('REVOKE ALL ON %I FROM %I', name, role_name);
        END LOOP;
    END LOOP;
    -- Half of pgvector's links, found again by twice the ef_search: the same recall in the same time, and writes twice as fast.
    IF to_regclass(format('%I.%I', place, table_name || '_hnsw_index')) IS NULL
       AND coalesce(obj_description(format('%I.%I', place, table_name)::regclass, 'pg_class') NOT LIKE 'synapse bulk load %', true) THEN
        EXECUTE format(
            'CREATE INDEX %I ON %I USING hnsw (embedding %s_cosine_ops) WITH (m = %s, ef_construction = %s)',
            table_name || '_hnsw_index', table_name, vector_type, m, ef_construction);
    END IF;
    IF synapse_create_keywords(place, table_name, language) THEN
        EXECUTE format('DROP INDEX IF EXISTS %I.%I', place, table_name || '_keyword_index');  -- of who has no keyword tables
        PERFORM synapse_rebuild_keywords(format('%I.%I', place, table_name)::regclass);
    END IF;

    FOREACH name IN ARRAY ARRAY[table_name, table_name || '_keywords', table_name || '_terms'] LOOP
        PERFORM synapse_bind_table(place, name, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE');
    END LOOP;
END
$$;
