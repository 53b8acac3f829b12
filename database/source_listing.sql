-- sources_after --
-- A page of sources by name, in the order of the index on the name.
SELECT source, title, mime_type, chunks, size, reason, indexed_at
  FROM sources
 WHERE model = %(model)s AND source > %(after)s
 ORDER BY source
 LIMIT %(limit)s
