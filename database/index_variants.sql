-- vector_indexes --
-- The indexes by distance that a table has, as far as they can be used.
SELECT c.relname AS name,
       am.amname AS method,
       o.opcname AS operators,
       pg_get_indexdef(c.oid, 1, false) AS indexed,
       pg_get_expr(i.indpred, i.indrelid) AS predicate,
       (SELECT option_value::integer FROM pg_options_to_table(c.reloptions) WHERE option_name = 'lists') AS lists,
       obj_description(c.oid, 'pg_class') AS comment
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indexrelid
  JOIN pg_am am ON am.oid = c.relam
  JOIN pg_opclass o ON o.oid = i.indclass[0]
 WHERE i.indrelid = to_regclass({table_name}) AND i.indisvalid AND am.amname IN ('hnsw', 'ivfflat')
 ORDER BY c.relname
