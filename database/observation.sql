-- server --
SELECT current_setting('server_version') AS server_version,
       (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS pgvector_version,
       (SELECT version_num FROM alembic_version) AS schema_version,
       current_user::text AS role,
       pg_is_in_recovery() AS standby,
       pg_database_size(current_database()) AS bytes,
       pg_postmaster_start_time() AS started_at,
       (SELECT stats_reset FROM pg_stat_database WHERE datname = current_database()) AS counted_since,
       EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_stat_statements') AS has_statements

-- tables --
-- A tenant's own tables, the largest first.
SELECT s.table_name AS name, s.estimated_rows, s.dead_rows, s.heap_bytes, s.index_bytes, s.total_bytes, s.last_vacuum,
       c.heap_hit_ratio, c.index_hit_ratio
  FROM public.synapse_table_sizes s
  JOIN public.synapse_cache_hits c USING (schema_name, table_name)
 WHERE s.tenant = %(tenant)s
 ORDER BY s.total_bytes DESC, s.table_name

-- indexes --
-- Likewise its indexes.
SELECT index_name AS name, table_name AS table, method, scans, rows_read, last_used, bytes, valid, is_unique
  FROM public.synapse_index_use
 WHERE tenant = %(tenant)s
 ORDER BY valid, bytes DESC, index_name

-- sources --
-- What the ledger says of each embedding model.
SELECT m.name AS model,
       m.active,
       count(s.source) FILTER (WHERE s.reason IS NULL) AS sources,
       coalesce(sum(s.chunks) FILTER (WHERE s.reason IS NULL), 0)::bigint AS chunks,
       count(s.source) FILTER (WHERE s.reason IS NOT NULL) AS quarantined,
       max(s.indexed_at) AS last_indexed_at
  FROM public.embedding_models m
  LEFT JOIN sources s ON s.model = m.name
 GROUP BY m.name, m.active
 ORDER BY m.active DESC, m.name

-- quarantined --
-- The latest of those that are kept out.
SELECT model, source, reason, since
  FROM public.synapse_quarantined_sources
 WHERE tenant = %(tenant)s
 ORDER BY since DESC, source
 LIMIT %(most)s

-- growth --
SELECT day, sources, chunks, bytes, conversations
  FROM public.synapse_growth
 WHERE tenant = %(tenant)s
   AND day > (now() AT TIME ZONE 'UTC')::date - %(days)s::integer
 ORDER BY day

-- questions --
-- Per day (UTC); times are those from a question to the end of its answer, in milliseconds.
SELECT (at AT TIME ZONE 'UTC')::date AS day,
       count(*) AS questions,
       count(*) FILTER (WHERE NOT supported) AS empty_answers,
       sum(tokens_in)::bigint AS tokens_in,
       sum(tokens_out)::bigint AS tokens_out,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY milliseconds) AS p50_ms,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY milliseconds) AS p95_ms,
       max(milliseconds) AS max_ms
  FROM public.usage_logs
 WHERE tenant = %(tenant)s
   AND (at AT TIME ZONE 'UTC')::date > (now() AT TIME ZONE 'UTC')::date - %(days)s::integer
 GROUP BY 1
 ORDER BY 1

-- slowest --
-- The slowest questions of these days; the log keeps no texts.
SELECT at, kind, model, milliseconds
  FROM public.usage_logs
 WHERE tenant = %(tenant)s
   AND milliseconds IS NOT NULL
   AND (at AT TIME ZONE 'UTC')::date > (now() AT TIME ZONE 'UTC')::date - %(days)s::integer
 ORDER BY milliseconds DESC, at
 LIMIT %(most)s

-- statements --
-- Where PostgreSQL's time goes, if pg_stat_statements is there.
SELECT statement, calls, mean_ms, max_ms, total_ms FROM public.synapse_statements() ORDER BY total_ms DESC LIMIT %(most)s

-- certificates --
-- What `recall` measured last of each table.
SELECT DISTINCT ON (table_name) table_name AS table, measured_at, recall, lower, top_k, ef_search
  FROM public.recall_certificates
 WHERE tenant = %(tenant)s
 ORDER BY table_name, measured_at DESC

-- connections --
-- Of this database. States of other roles' connections are hidden from who is in neither them nor pg_read_all_stats.
SELECT count(*) AS open,
       count(*) FILTER (WHERE state = 'active') AS active,
       count(*) FILTER (WHERE state = 'idle') AS idle,
       count(*) FILTER (WHERE starts_with(state, 'idle in transaction') AND state_change < now() - interval '1 s')
           AS idle_in_transaction,
       count(*) FILTER (WHERE state IS NULL) AS hidden,
       current_setting('max_connections')::integer AS most,
       extract(epoch FROM max(now() - xact_start))::double precision AS longest_transaction_seconds
  FROM pg_stat_activity
 WHERE datname = current_database()
   AND coalesce(backend_type, 'client backend') = 'client backend'

-- builds --
-- Indexes that are being built; of other roles' nothing but that they are.
SELECT p.index_relid::regclass::text AS index,
       p.relid::regclass::text AS table,
       p.phase,
       p.blocks_done AS done,
       p.blocks_total AS total,
       extract(epoch FROM now() - a.query_start)::double precision AS seconds
  FROM pg_stat_progress_create_index p
  LEFT JOIN pg_stat_activity a USING (pid)
 WHERE p.datname = current_database()
 ORDER BY a.query_start
