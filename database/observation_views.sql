-- Views for whoever watches the database. Each is `security_invoker` and names only what the role that asks may read: a tenant sees
-- its own tables and rows, the owner everybody's. Conversations and usage are bound to a tenant's role even for the owner, unless
-- it is a superuser. Days are days in UTC. Columns may be added here, at the end; to change one, drop its view first.

-- Tables of this program that the current role may read; no tenant means that all share it. A partition counts as what it is a
-- part of.
CREATE OR REPLACE VIEW synapse_tables WITH (security_invoker = true) AS
SELECT c.oid AS relation,
       CASE WHEN shared.found THEN NULL WHEN n.nspname = 'public' THEN 'default' ELSE substr(n.nspname, 8) END AS tenant,
       n.nspname AS schema_name,
       c.relname AS table_name,
       c.relkind AS kind
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND (n.nspname = 'public' OR starts_with(n.nspname, 'tenant_'))
  JOIN pg_catalog.pg_class whole ON whole.oid = coalesce(pg_partition_root(c.oid), c.oid)
 CROSS JOIN LATERAL (
           SELECT n.nspname = 'public'
              AND whole.relname IN ('alembic_version', 'api_keys', 'chat_messages', 'chat_sessions', 'embedding_models', 'feedback',
                                    'migration_parts', 'migration_rows', 'migration_runs', 'recall_certificates', 'tenants',
                                    'usage_logs', 'users') AS found
       ) AS shared
 WHERE c.relkind IN ('r', 'p')
   AND (shared.found
        OR whole.relname IN ('metadata_fields', 'source_chunks', 'source_texts', 'sources')
        OR EXISTS (SELECT FROM public.embedding_models m
                    WHERE whole.relname IN (m.table_name, m.table_name || '_keywords', m.table_name || '_terms')))
   AND has_schema_privilege(n.oid, 'USAGE')
   AND has_table_privilege(c.oid, 'SELECT');

-- Bytes of each table, its indexes and what is out of line; rows as the planner estimates them, or before its first look as they
-- were counted when they were written; and rows that wait for VACUUM.
CREATE OR REPLACE VIEW synapse_table_sizes WITH (security_invoker = true) AS
SELECT t.tenant,
       t.schema_name,
       t.table_name,
       (CASE WHEN c.reltuples < 0 THEN coalesce(s.n_live_tup, 0) ELSE c.reltuples END)::bigint AS estimated_rows,
       coalesce(s.n_dead_tup, 0) AS dead_rows,
       pg_relation_size(t.relation) AS heap_bytes,
       pg_indexes_size(t.relation) AS index_bytes,
       pg_total_relation_size(t.relation) - pg_relation_size(t.relation) - pg_indexes_size(t.relation) AS other_bytes,
       pg_total_relation_size(t.relation) AS total_bytes,
       greatest(s.last_vacuum, s.last_autovacuum) AS last_vacuum,
       greatest(s.last_analyze, s.last_autoanalyze) AS last_analyze
  FROM public.synapse_tables t
  JOIN pg_catalog.pg_class c ON c.oid = t.relation
  LEFT JOIN pg_catalog.pg_stat_all_tables s ON s.relid = t.relation
 WHERE t.kind = 'r';

-- What each index is for: how often it was used since the statistics were reset, when last, and what it costs.
CREATE OR REPLACE VIEW synapse_index_use WITH (security_invoker = true) AS
SELECT t.tenant,
       t.schema_name,
       t.table_name,
       c.relname AS index_name,
       a.amname AS method,
       coalesce(s.idx_scan, 0) AS scans,
       coalesce(s.idx_tup_read, 0) AS rows_read,
       s.last_idx_scan AS last_used,
       pg_relation_size(i.indexrelid) AS bytes,
       i.indisvalid AS valid,
       i.indisunique AS is_unique  -- it keeps a rule, and is needed even if nothing reads it
  FROM public.synapse_tables t
  JOIN pg_catalog.pg_index i ON i.indrelid = t.relation
  JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_am a ON a.oid = c.relam
  LEFT JOIN pg_catalog.pg_stat_all_indexes s ON s.indexrelid = i.indexrelid
 WHERE t.kind = 'r';

-- How much of what was read stood in PostgreSQL's own memory; what the operating system had in its cache counts as read.
CREATE OR REPLACE VIEW synapse_cache_hits WITH (security_invoker = true) AS
SELECT t.tenant,
       t.schema_name,
       t.table_name,
       coalesce(s.heap_blks_hit, 0) AS heap_hits,
       coalesce(s.heap_blks_read, 0) AS heap_reads,
       s.heap_blks_hit::double precision / nullif(s.heap_blks_hit + s.heap_blks_read, 0) AS heap_hit_ratio,
       coalesce(s.idx_blks_hit, 0) AS index_hits,
       coalesce(s.idx_blks_read, 0) AS index_reads,
       s.idx_blks_hit::double precision / nullif(s.idx_blks_hit + s.idx_blks_read, 0) AS index_hit_ratio
  FROM public.synapse_tables t
  LEFT JOIN pg_catalog.pg_statio_all_tables s ON s.relid = t.relation
 WHERE t.kind = 'r';

-- Every ledger that the current role may read, summed per day. A source that changes moves to the day when it was indexed again.
CREATE OR REPLACE FUNCTION synapse_ledger_days()
RETURNS TABLE (tenant text, day date, model text, sources bigint, chunks bigint, bytes bigint)
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    ledger record;
BEGIN
    FOR ledger IN SELECT t.tenant, t.schema_name FROM public.synapse_tables t WHERE t.table_name = 'sources' LOOP
        RETURN QUERY EXECUTE format(
            'SELECT %L::text, (indexed_at AT TIME ZONE ''UTC'')::date, model, count(*), sum(chunks), sum(size)::bigint
               FROM %I.sources WHERE reason IS NULL GROUP BY 2, 3', ledger.tenant, ledger.schema_name);
    END LOOP;
END
$$;

-- What came in per day: sources with their chunks and bytes, once per embedding model that holds them, and conversations, of
-- which NULL means that this role sees none.
CREATE OR REPLACE VIEW synapse_growth WITH (security_invoker = true) AS
WITH indexed AS (
    SELECT tenant, day, sum(sources)::bigint AS sources, sum(chunks)::bigint AS chunks, sum(bytes)::bigint AS bytes
      FROM public.synapse_ledger_days()
     GROUP BY tenant, day
), talked AS (
    SELECT tenant, (created_at AT TIME ZONE 'UTC')::date AS day, count(*) AS conversations
      FROM public.chat_sessions
     GROUP BY 1, 2
)
SELECT tenant,
       day,
       coalesce(i.sources, 0) AS sources,
       coalesce(i.chunks, 0) AS chunks,
       coalesce(i.bytes, 0) AS bytes,
       CASE WHEN row_security_active('public.chat_sessions') AND public.synapse_tenant() IS NULL THEN NULL
            ELSE coalesce(t.conversations, 0) END AS conversations
  FROM indexed i
  FULL JOIN talked t USING (tenant, day);

-- Sources that are kept out, with the reason, in every ledger that the current role may read.
CREATE OR REPLACE FUNCTION synapse_quarantine() RETURNS TABLE (tenant text, model text, source text, reason text, since timestamptz)
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    ledger record;
BEGIN
    FOR ledger IN SELECT t.tenant, t.schema_name FROM public.synapse_tables t WHERE t.table_name = 'sources' LOOP
        RETURN QUERY EXECUTE format(
            'SELECT %L::text, model, source, reason, indexed_at FROM %I.sources WHERE reason IS NOT NULL',
            ledger.tenant, ledger.schema_name);
    END LOOP;
END
$$;
CREATE OR REPLACE VIEW synapse_quarantined_sources WITH (security_invoker = true) AS
SELECT tenant, model, source, reason, since FROM public.synapse_quarantine();

-- What pg_stat_statements knows of queries on documents tables, where it is there: installed, loaded, and open to this role. It
-- shows everybody's statements to members of pg_read_all_stats, and to others those that they ran themselves.
CREATE OR REPLACE FUNCTION synapse_statements()
RETURNS TABLE (tenant text, statement text, calls bigint, mean_ms double precision, max_ms double precision,
               total_ms double precision)
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    place text := (SELECT n.nspname FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
                    WHERE e.extname = 'pg_stat_statements');
BEGIN
    IF place IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format($query$
        SELECT CASE WHEN starts_with(r.rolname, 'synapse_tenant_') THEN substr(r.rolname, 16) END, s.query, s.calls,
               s.mean_exec_time, s.max_exec_time, s.total_exec_time
          FROM %I.pg_stat_statements s
          LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.userid
         WHERE s.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
           AND s.query ~* '^\s*(--[^\n]*\n\s*)*(SELECT|WITH)\M'
           AND s.query !~* '\m(INSERT\s+INTO|UPDATE|DELETE\s+FROM)\M'
           AND EXISTS (SELECT FROM public.embedding_models m WHERE strpos(s.query, m.table_name) > 0)
        $query$, place);
EXCEPTION
    -- Installed but not in shared_preload_libraries; or closed to this role; or older than PostgreSQL 13's.
    WHEN object_not_in_prerequisite_state OR insufficient_privilege OR undefined_table OR undefined_column THEN RETURN;
END
$$;

-- Where the time goes: statements by pg_stat_statements, where it is there, and questions per day and kind as the service and the
-- commands measured them, from question to answer. Milliseconds; pg_stat_statements knows no percentiles and no days.
CREATE OR REPLACE VIEW synapse_slow_retrievals WITH (security_invoker = true) AS
SELECT 'pg_stat_statements' AS measured_by,
       tenant,
       NULL::date AS day,
       statement AS what,
       calls,
       mean_ms,
       NULL::double precision AS p50_ms,
       NULL::double precision AS p95_ms,
       max_ms,
       total_ms
  FROM public.synapse_statements()
 UNION ALL
SELECT 'usage_logs',
       tenant,
       (at AT TIME ZONE 'UTC')::date,
       kind,
       count(*),
       avg(milliseconds),
       percentile_cont(0.5) WITHIN GROUP (ORDER BY milliseconds),
       percentile_cont(0.95) WITHIN GROUP (ORDER BY milliseconds),
       max(milliseconds),
       sum(milliseconds)
  FROM public.usage_logs
 WHERE milliseconds IS NOT NULL
 GROUP BY 2, 3, 4;

-- Closed to everyone, Supabase's API roles included, but the application's roles.
DO $$
DECLARE
    name text;
    role_name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['synapse_tables', 'synapse_table_sizes', 'synapse_index_use', 'synapse_cache_hits',
                                'synapse_growth', 'synapse_quarantined_sources', 'synapse_slow_retrievals'] LOOP
        PERFORM synapse_close('public', name);
        FOR role_name IN SELECT rolname FROM pg_roles WHERE rolname IN ('synapse_app', 'synapse_tenant') LOOP
            EXECUTE format('GRANT SELECT ON public.%I TO %I', name, role_name);
        END LOOP;
    END LOOP;
END
$$;
