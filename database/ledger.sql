-- all_states --
SELECT source, root, size, mtime_ns, content_hash, meta_hash, fingerprint, reason, chunks, checked_at_ns
  FROM sources
 WHERE model = %(model)s

-- states_below --
-- A root is a folder or a single source.
SELECT source, root, size, mtime_ns, content_hash, meta_hash, fingerprint, reason, chunks, checked_at_ns
  FROM sources
 WHERE model = %(model)s
   AND EXISTS (SELECT FROM unnest(%(roots)s::text[]) AS root_given
                WHERE source = root_given OR starts_with(source, rtrim(root_given, '/') || '/'))

-- lock_sources --
-- Two writers of one source take turns; in one order, so that they never wait for each other.
SELECT pg_advisory_xact_lock(hashtextextended(key, 0))
  FROM (SELECT DISTINCT %(model)s || ' ' || source AS key FROM unnest(%(sources)s::text[]) AS source ORDER BY 1) AS keys

-- upsert_state --
INSERT INTO sources (model, source, root, size, mtime_ns, checked_at_ns, content_hash, meta_hash, fingerprint, reason,
                     title, mime_type, chunks)
VALUES (%(model)s, %(source)s, %(root)s, %(size)s, %(mtime_ns)s, %(checked_at_ns)s, %(content_hash)s, %(meta_hash)s,
        %(fingerprint)s, %(reason)s, %(title)s, %(mime_type)s, %(chunks)s)
ON CONFLICT (model, source) DO UPDATE
   SET root = EXCLUDED.root, size = EXCLUDED.size, mtime_ns = EXCLUDED.mtime_ns, checked_at_ns = EXCLUDED.checked_at_ns,
       content_hash = EXCLUDED.content_hash, meta_hash = EXCLUDED.meta_hash, fingerprint = EXCLUDED.fingerprint,
       reason = EXCLUDED.reason, title = EXCLUDED.title, mime_type = EXCLUDED.mime_type, chunks = EXCLUDED.chunks,
       indexed_at = now()

-- upsert_text --
INSERT INTO source_texts (model, source, text)
VALUES (%(model)s, %(source)s, %(text)s)
ON CONFLICT (model, source) DO UPDATE SET text = EXCLUDED.text

-- delete_texts --
DELETE FROM source_texts WHERE model = %(model)s AND source = ANY(%(sources)s)

-- delete_stale_documents --
-- Chunks of these sources that are not among those written now.
DELETE FROM {table}
 WHERE id IN (SELECT document_id FROM source_chunks WHERE model = %(model)s AND source = ANY(%(sources)s))
   AND NOT id = ANY(%(kept)s)

-- delete_chunk_numbers --
DELETE FROM source_chunks WHERE model = %(model)s AND source = ANY(%(sources)s)

-- insert_chunk_numbers --
INSERT INTO source_chunks (model, source, document_id, position)
SELECT %(model)s, source, document_id, position
  FROM unnest(%(sources)s::text[], %(ids)s::text[], %(positions)s::integer[]) AS t (source, document_id, position)

-- touch --
-- Only while the ledger holds these bytes: another run may have written others.
UPDATE sources
   SET root = %(root)s, size = %(size)s, mtime_ns = %(mtime_ns)s, checked_at_ns = %(checked_at_ns)s
 WHERE model = %(model)s AND source = %(source)s
   AND content_hash = %(content_hash)s AND meta_hash = %(meta_hash)s

-- is_as_planned --
SELECT source FROM sources WHERE model = %(model)s AND source = %(old)s AND content_hash = %(content_hash)s

-- rename --
-- Texts and chunk numbers follow by their foreign keys.
UPDATE sources
   SET source = %(source)s, root = %(root)s, size = %(size)s, mtime_ns = %(mtime_ns)s,
       checked_at_ns = %(checked_at_ns)s, content_hash = %(content_hash)s, meta_hash = %(meta_hash)s
 WHERE model = %(model)s AND source = %(old)s

-- move_chunks --
-- Chunks get the ids that components.chunk_ids.chunk_id gives them under the new name, so that those of the old name
-- are free for a file that appears there later.
WITH renamed AS (
    SELECT d.id AS old_id,
           left(encode(sha256(convert_to(concat_ws(E'\n', c.source, c.position, coalesce(d.meta ->> 'title', ''),
                                                   coalesce(d.meta ->> 'heading', ''), coalesce(d.content, '')),
                                         'UTF8')), 'hex'), 40) AS new_id
      FROM source_chunks c
      JOIN {table} d ON d.id = c.document_id
     WHERE c.model = %(model)s AND c.source = %(source)s
), moved AS (
    UPDATE {table} SET id = new_id, meta = meta || %(changes)s FROM renamed WHERE id = old_id
)
UPDATE source_chunks SET document_id = new_id FROM renamed WHERE model = %(model)s AND document_id = old_id

-- delete_sources --
-- Texts and chunk numbers follow by their foreign keys.
DELETE FROM sources WHERE model = %(model)s AND source = ANY(%(sources)s)

-- text --
SELECT text FROM source_texts WHERE model = %(model)s AND source = %(source)s

-- known_embeddings --
-- Embeddings of chunks that stand already, so that unchanged chunks of a changed source are not embedded again.
SELECT id, embedding FROM {table} WHERE id = ANY(%(ids)s) AND embedding IS NOT NULL

-- list_sources --
SELECT source, title, mime_type, chunks, size, reason, indexed_at
  FROM sources
 WHERE model = %(model)s
   AND (%(prefix)s::text IS NULL OR source = %(prefix)s OR starts_with(source, rtrim(%(prefix)s, '/') || '/'))
 ORDER BY source

-- chunks_of --
SELECT d.id, c.position, d.content, d.meta
  FROM source_chunks c
  JOIN {table} d ON d.id = c.document_id
 WHERE c.model = %(model)s AND c.source = %(source)s
 ORDER BY c.position

-- excerpts --
-- Parts of converted texts, for citations.
SELECT substr(source_texts.text, wanted.start + 1, wanted.length) AS excerpt
  FROM unnest(%(sources)s::text[], %(starts)s::integer[], %(lengths)s::integer[])
       WITH ORDINALITY AS wanted (source, start, length, place)
  LEFT JOIN source_texts ON source_texts.source = wanted.source AND source_texts.model = %(model)s
 ORDER BY place
