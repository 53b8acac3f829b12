-- insert_or_fail --
-- Inserts what is new; the caller rolls back when fewer ids come back than were sent.
INSERT INTO {table} (id, embedding, content, blob_data, blob_meta, blob_mime_type, meta)
SELECT id, embedding, content, blob_data, blob_meta::jsonb, blob_mime_type, meta::jsonb
  FROM unnest(%(id)b::text[], %(embedding)b::vector[], %(content)b::text[], %(blob_data)b::bytea[], %(blob_meta)b::text[],
              %(blob_mime_type)b::text[], %(meta)b::text[])
    AS new (id, embedding, content, blob_data, blob_meta, blob_mime_type, meta)
    ON CONFLICT DO NOTHING
RETURNING id

-- insert_or_skip --
-- Inserts what is new and leaves what exists as it is.
INSERT INTO {table} (id, embedding, content, blob_data, blob_meta, blob_mime_type, meta)
SELECT id, embedding, content, blob_data, blob_meta::jsonb, blob_mime_type, meta::jsonb
  FROM unnest(%(id)b::text[], %(embedding)b::vector[], %(content)b::text[], %(blob_data)b::bytea[], %(blob_meta)b::text[],
              %(blob_mime_type)b::text[], %(meta)b::text[])
    AS new (id, embedding, content, blob_data, blob_meta, blob_mime_type, meta)
    ON CONFLICT DO NOTHING
RETURNING id

-- insert_or_overwrite --
-- A row whose content and embedding stay the same is not put into their indexes again.
INSERT INTO {table} (id, embedding, content, blob_data, blob_meta, blob_mime_type, meta)
SELECT id, embedding, content, blob_data, blob_meta::jsonb, blob_mime_type, meta::jsonb
  FROM unnest(%(id)b::text[], %(embedding)b::vector[], %(content)b::text[], %(blob_data)b::bytea[], %(blob_meta)b::text[],
              %(blob_mime_type)b::text[], %(meta)b::text[])
    AS new (id, embedding, content, blob_data, blob_meta, blob_mime_type, meta)
    ON CONFLICT (id) DO UPDATE
   SET embedding = EXCLUDED.embedding,
       content = EXCLUDED.content,
       blob_data = EXCLUDED.blob_data,
       blob_meta = EXCLUDED.blob_meta,
       blob_mime_type = EXCLUDED.blob_mime_type,
       meta = EXCLUDED.meta
RETURNING id
