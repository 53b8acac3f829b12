-- begin_run --
-- The same source into the same tables is the same run, however often it is begun.
INSERT INTO migration_runs (id, source_kind, source, fingerprint, options)
VALUES (%(id)s, %(source_kind)s, %(source)s, %(fingerprint)s, %(options)s)
    ON CONFLICT (id) DO UPDATE SET attempts = migration_runs.attempts + 1, source = EXCLUDED.source,
                                   options = EXCLUDED.options
RETURNING id, source_kind, source, fingerprint, options, started_at, finished_at, attempts

-- written_options --
-- The options of a run that has written something.
SELECT options
  FROM migration_runs
 WHERE id = %(id)s
   AND (EXISTS (SELECT FROM migration_parts WHERE run = %(id)s AND inserted > 0)
        OR EXISTS (SELECT FROM migration_rows WHERE run = %(id)s))

-- runs --
SELECT id, source_kind, source, fingerprint, options, started_at, finished_at, attempts
  FROM migration_runs
 ORDER BY started_at, id

-- finish_run --
UPDATE migration_runs SET finished_at = now(), receipt = %(receipt)s WHERE id = %(id)s

-- delete_run --
-- Parts and rows follow by their foreign keys.
DELETE FROM migration_runs WHERE id = %(id)s

-- has_table --
SELECT FROM embedding_models WHERE table_name = %(table_name)s

-- add_part --
INSERT INTO migration_parts (run, part, name, table_name, created_model)
VALUES (%(run)s, %(part)s, %(name)s, %(table_name)s, %(created_model)s)
    ON CONFLICT DO NOTHING

-- parts --
SELECT part, name, table_name, created_model, switched_from, position, inserted
  FROM migration_parts
 WHERE run = %(run)s
 ORDER BY name, part

-- checkpoint --
UPDATE migration_parts
   SET position = %(position)s, inserted = inserted + %(inserted)s
 WHERE run = %(run)s AND part = %(part)s

-- note_switch --
UPDATE migration_parts SET switched_from = %(switched_from)s WHERE run = %(run)s AND part = %(part)s

-- note_rows --
INSERT INTO migration_rows (run, table_name, document_id)
SELECT %(run)s, %(table_name)s, id FROM unnest(%(ids)s::text[]) AS id
    ON CONFLICT DO NOTHING

-- note_conflicts --
-- Rows that are there already, with other contents, as they are.
INSERT INTO migration_rows (run, table_name, document_id, original)
SELECT %(run)s, %(table_name)s, id,
       jsonb_build_object('embedding', embedding::text, 'content', content, 'blob_data', encode(blob_data, 'base64'),
                          'blob_meta', blob_meta, 'blob_mime_type', blob_mime_type, 'meta', meta)
  FROM {table}
 WHERE id = ANY(%(ids)s)
    ON CONFLICT DO NOTHING

-- conflicts --
SELECT document_id FROM migration_rows WHERE run = %(run)s AND table_name = %(table_name)s AND original IS NOT NULL

-- originals --
-- As they are, or as they were where the run has replaced them.
SELECT id, coalesce(original, jsonb_build_object(
           'embedding', embedding::text, 'content', content, 'blob_data', encode(blob_data, 'base64'),
           'blob_meta', blob_meta, 'blob_mime_type', blob_mime_type, 'meta', meta)) AS original
  FROM {table}
  LEFT JOIN migration_rows ON run = %(run)s AND table_name = %(table_name)s AND document_id = id
 WHERE id = ANY(%(ids)s)

-- restore_rows --
-- Documents that the run replaced, as they were.
UPDATE {table} AS documents
   SET embedding = (original ->> 'embedding')::{vector_type}, content = original ->> 'content',
       blob_data = decode(original ->> 'blob_data', 'base64'), blob_meta = nullif(original -> 'blob_meta', 'null'),
       blob_mime_type = original ->> 'blob_mime_type', meta = nullif(original -> 'meta', 'null')
  FROM migration_rows
 WHERE run = %(run)s AND table_name = %(table_name)s AND original IS NOT NULL AND documents.id = document_id

-- delete_rows --
DELETE FROM {table}
 WHERE id IN (SELECT document_id FROM migration_rows
               WHERE run = %(run)s AND table_name = %(table_name)s AND original IS NULL)

-- count_rows --
SELECT count(*) AS rows FROM {table}
