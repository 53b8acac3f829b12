-- may_stage --
-- Anyone may make temporary tables unless the database was hardened.
SELECT WHERE has_database_privilege(current_database(), 'TEMPORARY')

-- create_staging --
-- Gone at the end of the transaction, so that nothing is left on a pooler's connection. Any dimension, either vector type:
-- the documents table checks. It is emptied for each batch.
CREATE TEMPORARY TABLE IF NOT EXISTS synapse_staging (
    id text, embedding vector, content text, blob_data bytea, blob_meta text, blob_mime_type text, meta text
) ON COMMIT DROP;
TRUNCATE pg_temp.synapse_staging

-- copy_staging --
COPY pg_temp.synapse_staging FROM STDIN (FORMAT binary)

-- copy_rows --
COPY {table} (id, embedding, content, blob_data, blob_meta, blob_mime_type, meta) FROM STDIN (FORMAT binary)

-- staged_rows --
-- COPY came in the order of ids, and a table just emptied is read in the order that it was filled.
pg_temp.synapse_staging

-- given_rows --
-- For a few rows: making a staging table would take longer.
unnest(%(id)b::text[], %(embedding)b::vector[], %(content)b::text[], %(blob_data)b::bytea[], %(blob_meta)b::text[],
       %(blob_mime_type)b::text[], %(meta)b::text[])

-- insert_or_fail --
-- Inserts what is new; the caller rolls back when fewer ids come back than were sent.
INSERT INTO {table} (id, embedding, content, blob_data, blob_meta, blob_mime_type, meta)
SELECT id, embedding, content, blob_data, blob_meta::jsonb, blob_mime_type, meta::jsonb
  FROM {rows} AS new (id, embedding, content, blob_data, blob_meta, blob_mime_type, meta)
    ON CONFLICT DO NOTHING
RETURNING id

-- insert_or_skip --
-- Inserts what is new and leaves what exists as it is.
INSERT INTO {table} (id, embedding, content, blob_data, blob_meta, blob_mime_type, meta)
SELECT id, embedding, content, blob_data, blob_meta::jsonb, blob_mime_type, meta::jsonb
  FROM {rows} AS new (id, embedding, content, blob_data, blob_meta, blob_mime_type, meta)
    ON CONFLICT DO NOTHING
RETURNING id

-- insert_or_overwrite --
-- A row whose content and embedding stay the same is not put into their indexes again.
INSERT INTO {table} (id, embedding, content, blob_data, blob_meta, blob_mime_type, meta)
SELECT id, embedding, content, blob_data, blob_meta::jsonb, blob_mime_type, meta::jsonb
  FROM {rows} AS new (id, embedding, content, blob_data, blob_meta, blob_mime_type, meta)
    ON CONFLICT (id) DO UPDATE
   SET embedding = EXCLUDED.embedding,
       content = EXCLUDED.content,
       blob_data = EXCLUDED.blob_data,
       blob_meta = EXCLUDED.blob_meta,
       blob_mime_type = EXCLUDED.blob_mime_type,
       meta = EXCLUDED.meta
RETURNING id
