-- One table of documents per embedding model, in exactly pgvector-haystack's layout, with its index and its keyword tables.
-- Brings a table that is there already, made by a plain store or an earlier version, to the same state.
-- Called by the schema versions, by init.sql, by `models add` and by SynapseDocumentStore.create_table().
CREATE OR REPLACE FUNCTION synapse_create_documents_table(
    table_name text,
    dimension integer,
    vector_type text DEFAULT 'vector',
    language text DEFAULT 'english',
    m integer DEFAULT 8,
    ef_construction integer DEFAULT 48
) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    most integer := CASE vector_type WHEN 'vector' THEN 2000 WHEN 'halfvec' THEN 4000 END;
    keywords text := table_name || '_keywords';
    terms text := table_name || '_terms';
    place text := current_schema();  -- what is dropped is named in full: the path goes on to other schemas
    name text;
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
    -- Half of pgvector's links, found again by twice the ef_search: the same recall in the same time, and writes twice as fast.
    EXECUTE format(
        'CREATE INDEX IF NOT EXISTS %I ON %I USING hnsw (embedding %s_cosine_ops) WITH (m = %s, ef_construction = %s)',
        table_name || '_hnsw_index', table_name, vector_type, m, ef_construction);
    EXECUTE format('DROP INDEX IF EXISTS %I.%I', place, table_name || '_keyword_index');  -- of versions without keyword tables

    IF NOT EXISTS (SELECT FROM pg_trigger
                    WHERE tgrelid = format('%I.%I', place, table_name)::regclass AND tgname = 'synapse_keywords_insert') THEN
        EXECUTE format('DROP TABLE IF EXISTS %I.%I, %I.%I', place, keywords, place, terms);  -- left by a documents table of this name
        EXECUTE format(
            'CREATE TABLE %I (
                document_id varchar(128) PRIMARY KEY,
                language text NOT NULL,
                length integer NOT NULL,
                pivot real NOT NULL,
                terms integer[] NOT NULL,
                weights sparsevec NOT NULL
            ) WITH (toast_tuple_target = 8160)', keywords);  -- in line: each search reads thousands of rows
        -- How many documents have a term, possibly in several parts. Term 0 stands for all documents of a language: how many,
        -- and how many words they have together.
        EXECUTE format(
            'CREATE TABLE %I (term integer NOT NULL, language text, documents bigint NOT NULL, length bigint)', terms);
        EXECUTE format('CREATE INDEX %I ON %I (term)', terms || '_term', terms);
        EXECUTE format(
            'CREATE TRIGGER synapse_keywords_insert AFTER INSERT ON %I REFERENCING NEW TABLE AS written
                FOR EACH STATEMENT EXECUTE FUNCTION synapse_update_keywords(%L)', table_name, language);
        EXECUTE format(
            'CREATE TRIGGER synapse_keywords_update AFTER UPDATE ON %I REFERENCING OLD TABLE AS removed NEW TABLE AS written
                FOR EACH STATEMENT EXECUTE FUNCTION synapse_update_keywords(%L)', table_name, language);
        EXECUTE format(
            'CREATE TRIGGER synapse_keywords_delete AFTER DELETE ON %I REFERENCING OLD TABLE AS removed
                FOR EACH STATEMENT EXECUTE FUNCTION synapse_update_keywords(%L)', table_name, language);
        EXECUTE format(
            'CREATE TRIGGER synapse_keywords_truncate AFTER TRUNCATE ON %I
                FOR EACH STATEMENT EXECUTE FUNCTION synapse_update_keywords(%L)', table_name, language);
        PERFORM synapse_rebuild_keywords(format('%I.%I', place, table_name)::regclass);
    END IF;

    FOREACH name IN ARRAY ARRAY[table_name, keywords, terms] LOOP
        PERFORM synapse_bind_table(place, name, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE');
    END LOOP;
END
$$;
