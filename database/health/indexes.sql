-- invalid --
-- Indexes of tables of ours that are not valid and that nobody is building. While a build runs whose index is hidden from us,
-- none is named. Another does an index's work if it is on the same columns by the same means.
SELECT i.indexrelid::regclass::text AS name, i.indrelid::regclass::text AS table_name,
       greatest(t.reltuples, s.n_live_tup, 0)::bigint AS rows,
       c.relname ~ '_(cc|synapse_)(new|old)\d*$' OR EXISTS (
           SELECT FROM pg_index o JOIN pg_class oc ON oc.oid = o.indexrelid
            WHERE o.indrelid = i.indrelid AND o.indisvalid AND o.indexrelid <> i.indexrelid AND oc.relam = c.relam
              AND o.indkey::text = i.indkey::text AND o.indclass::text = i.indclass::text
              AND o.indexprs::text IS NOT DISTINCT FROM i.indexprs::text AND o.indpred::text IS NOT DISTINCT FROM i.indpred::text
       ) AS replaced
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indexrelid
  JOIN pg_class t ON t.oid = i.indrelid
  JOIN pg_namespace n ON n.oid = t.relnamespace
  LEFT JOIN pg_stat_all_tables s ON s.relid = t.oid
 WHERE NOT i.indisvalid
   AND c.relkind = 'i'
   AND (n.nspname = 'public' OR starts_with(n.nspname, 'tenant_'))
   AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p
                    WHERE p.datname = current_database() AND (p.relid IS NULL OR p.relid = i.indrelid))
 ORDER BY 1

-- indexes --
-- Those for embeddings on a table. One on a part of the rows serves no search of all.
SELECT c.relname AS name, i.indisvalid AS valid, o.opcname LIKE '%%\_cosine\_ops' AS cosine, i.indpred IS NULL AS whole,
       CASE c.relkind WHEN 'i' THEN pg_relation_size(c.oid)
            ELSE (SELECT coalesce(sum(pg_relation_size(relid)), 0)::bigint FROM pg_partition_tree(c.oid)) END AS bytes
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indexrelid
  JOIN pg_am a ON a.oid = c.relam
  JOIN pg_opclass o ON o.oid = i.indclass[0]
 WHERE i.indrelid = %(oid)s AND a.amname IN ('hnsw', 'ivfflat')
 ORDER BY c.relname

-- names --
SELECT c.relname AS name
  FROM (SELECT %(oid)s::oid AS relid UNION SELECT relid FROM pg_partition_tree(%(oid)s::oid::regclass)) AS tables
  JOIN pg_index i ON i.indrelid = tables.relid
  JOIN pg_class c ON c.oid = i.indexrelid
  JOIN pg_am a ON a.oid = c.relam
 WHERE a.amname IN ('hnsw', 'ivfflat')

-- creation --
CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {table} USING hnsw (embedding {operators}) WITH (m = 8, ef_construction = 48)

-- forbidding --
SELECT name FROM pg_settings WHERE name = 'enable_indexscan' AND setting = 'off'

-- load_runs --
-- A load holds this lock as long as its connection lives.
SELECT EXISTS (SELECT FROM pg_locks
                WHERE locktype = 'advisory' AND objsubid = 1 AND granted
                  AND ((classid::bigint << 32) | objid::bigint) = hashtextextended('synapse bulk load', %(oid)s)) AS runs
