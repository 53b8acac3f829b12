-- server_facts --
SELECT current_setting('server_version') AS server_version,
       (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS pgvector_version,
       current_user AS role,
       (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS superuser,
       pg_database_size(current_database()) AS size

-- our_tables --
-- Rows are the planner's estimate; an exact count reads the whole table. A partitioned table is the sum of its parts.
SELECT c.relname AS name, parts.estimated_rows, parts.size
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 CROSS JOIN LATERAL (SELECT sum(greatest(part.reltuples, 0)) FILTER (WHERE part.relkind = 'r')::bigint AS estimated_rows,
                            sum(pg_total_relation_size(part.oid))::bigint AS size
                       FROM pg_class part
                      WHERE part.oid = c.oid OR part.oid IN (SELECT relid FROM pg_partition_tree(c.oid))) AS parts
 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
   AND n.nspname = current_schema()
 ORDER BY c.relname

-- tenants --
-- Bytes are those of the tenants' own tables with their indexes.
SELECT CASE n.nspname WHEN 'public' THEN 'default' ELSE substr(n.nspname, 8) END AS name,
       sum(pg_total_relation_size(c.oid))::bigint AS size
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p')
   AND n.nspname IN (SELECT CASE name WHEN 'default' THEN 'public' ELSE 'tenant_' || name END FROM tenants)
 GROUP BY n.nspname
 ORDER BY size DESC, name

-- invalid_indexes --
-- Left over from an index build that failed; the planner never uses them.
SELECT format('%I.%I', n.nspname, c.relname) AS name
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indexrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE NOT i.indisvalid AND n.nspname !~ '^pg_toast'
 ORDER BY 1
