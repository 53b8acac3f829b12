-- neighbours --
-- The chunks around some chunks in their sources, themselves included, in reading order; only those that pass a filter.
WITH around AS (
    SELECT hit.document_id AS hit, near.source, near.position, near.document_id
      FROM source_chunks hit
      JOIN source_chunks near
        ON near.model = hit.model AND near.source = hit.source
       AND near.position BETWEEN hit.position - %(window)s AND hit.position + %(window)s
     WHERE hit.document_id = ANY(%(ids)s)
       AND hit.model = (SELECT name FROM embedding_models WHERE table_name = %(table_name)s)
), passing AS (
    SELECT id, content, meta
      FROM {table}
     WHERE id = ANY(ARRAY(SELECT document_id FROM around)) AND {condition}
)
SELECT around.hit, around.source, around.position, passing.id, passing.content, passing.meta
  FROM around
  JOIN passing ON passing.id = around.document_id
 ORDER BY around.hit, around.position

-- excerpts --
-- Parts of converted texts, in the order asked for; nothing of a text where it is gone.
SELECT substr(source_texts.text, wanted.start + 1, wanted.length) AS excerpt
  FROM unnest(%(sources)s::text[], %(starts)s::integer[], %(lengths)s::integer[])
       WITH ORDINALITY AS wanted (source, start, length, place)
  LEFT JOIN source_texts
    ON source_texts.source = wanted.source
   AND source_texts.model = (SELECT name FROM embedding_models WHERE table_name = %(table_name)s)
 ORDER BY place
