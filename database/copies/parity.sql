-- sample --
-- Any documents, the same ones each time; a zero vector has no cosine.
SELECT id, embedding::text AS query
  FROM {table}
 WHERE embedding IS NOT NULL AND (embedding <#> embedding) < 0
 ORDER BY md5(id)
 LIMIT %(count)s

-- nearest --
SELECT id, embedding <=> %(query)s::{vector_type} AS distance
  FROM {table}
 WHERE embedding IS NOT NULL
 ORDER BY embedding <=> %(query)s::{vector_type}
 LIMIT %(top_k)s

-- search_settings --
SELECT set_config('search_path', %(search_path)s, true),
       set_config('enable_indexscan', %(indexed)s, true),
       set_config('enable_seqscan', %(exact)s, true),
       set_config('hnsw.ef_search', %(ef_search)s, true)
