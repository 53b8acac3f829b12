-- tables --
-- Our tables, with what the statistics collector counts; documents tables are those of registered models.
SELECT s.relid::regclass::text AS name, s.n_live_tup AS live, s.n_dead_tup AS dead, s.n_mod_since_analyze AS changed,
       greatest(s.last_vacuum, s.last_autovacuum) AS vacuumed, greatest(s.last_analyze, s.last_autoanalyze) AS analysed,
       s.relname = ANY (%(names)s) AS documents,
       coalesce(c.reloptions && ARRAY['autovacuum_enabled=false', 'autovacuum_enabled=off', 'autovacuum_enabled=0'], false) AS off
  FROM pg_stat_all_tables s
  JOIN pg_class c ON c.oid = s.relid
 WHERE (s.schemaname = 'public' OR starts_with(s.schemaname, 'tenant_'))
   AND (s.relname = ANY (%(names)s) OR regexp_replace(s.relname, '_(keywords|terms)$', '') = ANY (%(names)s)
        OR s.relname IN ('sources', 'source_texts', 'source_chunks', 'chat_messages', 'usage_logs'))
   AND NOT coalesce(obj_description(c.oid, 'pg_class') LIKE 'synapse bulk load %%', false)
 ORDER BY 1

-- sessions --
-- Other sessions of this database whose transaction is open for long; autovacuum's are not.
SELECT pid, usename AS role, left(application_name, 40) AS application, state LIKE 'idle in transaction%%' AS idle,
       extract(epoch FROM clock_timestamp() - CASE WHEN state LIKE 'idle in transaction%%' THEN state_change ELSE xact_start END)::float8
           AS seconds
  FROM pg_stat_activity
 WHERE datname = current_database()
   AND pid <> pg_backend_pid()
   AND backend_type = 'client backend'
   AND (state LIKE 'idle in transaction%%' AND clock_timestamp() - state_change > make_interval(secs => %(idle)s)
        OR state = 'active' AND clock_timestamp() - xact_start > make_interval(secs => %(long)s))
 ORDER BY xact_start

-- age --
SELECT datname AS name, age(datfrozenxid) AS age FROM pg_database WHERE datname = current_database()

-- slots --
-- Slots that nobody reads and that hold back more than the limit, or have lost what they need.
SELECT slot_name AS name,
       CASE WHEN restart_lsn IS NOT NULL THEN pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint END AS bytes
  FROM pg_replication_slots
 WHERE NOT active
   AND NOT pg_is_in_recovery()
   AND (wal_status = 'lost' OR pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) > %(most)s)
 ORDER BY slot_name
