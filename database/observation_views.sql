-- Views for whoever watches the database. Who looks sees what their own role may see: each view is `security_invoker`.

-- Documents tables of all tenants: rows as the planner estimates them, and bytes with their indexes and keywords.
CREATE OR REPLACE VIEW synapse_documents_tables WITH (security_invoker = true) AS
SELECT CASE n.nspname WHEN 'public' THEN 'default' ELSE substr(n.nspname, 8) END AS tenant,
       m.name AS model,
       c.relname AS table_name,
       greatest(c.reltuples, 0)::bigint AS estimated_rows,
       pg_total_relation_size(c.oid)
           + coalesce(pg_total_relation_size(to_regclass(format('%I.%I', n.nspname, c.relname || '_keywords'))), 0)
           + coalesce(pg_total_relation_size(to_regclass(format('%I.%I', n.nspname, c.relname || '_terms'))), 0) AS bytes
  FROM embedding_models m
  JOIN pg_class c ON c.relname = m.table_name AND c.relkind IN ('r', 'p')
  JOIN pg_namespace n ON n.oid = c.relnamespace AND (n.nspname = 'public' OR starts_with(n.nspname, 'tenant_'));

SELECT synapse_close('public', viewname) FROM pg_views WHERE schemaname = 'public' AND starts_with(viewname, 'synapse_');
