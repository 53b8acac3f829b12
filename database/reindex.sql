-- table_facts --
-- A documents table: what it is, and what an unfinished bulk load noted in its comment.
SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relkind = 'p' AS partitioned, obj_description(c.oid, 'pg_class') AS comment,
       format_type(a.atttypid, NULL) AS vector_type, a.atttypmod AS dimension
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'embedding'
 WHERE c.oid = to_regclass(%(table)s)

-- hold --
-- The lock of bulk loads, too. Tried, not waited for: a session that waits would be waited for by the building of an index.
SELECT pg_try_advisory_lock(hashtextextended('synapse bulk load', %(oid)s)) AS got

-- prepare_session --
-- Of a client that was killed, PostgreSQL asks every two seconds whether it is still there, and ends the build.
SELECT set_config('client_connection_check_interval', '2s', false)

-- our_indexes --
-- All indexes of a documents table, of its partitions and of its keyword tables. `building` is the process that is at it.
SELECT i.indexrelid AS oid, n.nspname AS schema, c.relname AS name, t.relname AS table_name, c.relkind = 'I' AS partitioned,
       i.indisvalid AS valid, i.indisunique AS is_unique, c.relispartition AS attached, am.amname AS method, o.opcname AS operators,
       pg_get_indexdef(c.oid, 1, false) AS indexed, pg_get_expr(i.indpred, i.indrelid) AS predicate,
       obj_description(c.oid, 'pg_class') AS comment,
       (SELECT coalesce(sum(pg_relation_size(relid)), pg_relation_size(c.oid))::bigint FROM pg_partition_tree(c.oid)) AS bytes,
       (SELECT jsonb_object_agg(option_name, option_value::integer)
          FROM pg_options_to_table(c.reloptions) WHERE option_value ~ '^[0-9]+$') AS options,
       EXISTS (SELECT FROM metadata_fields f WHERE f.index_name = c.relname) AS declared,
       (SELECT pid FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid) AS building
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indexrelid
  JOIN pg_class t ON t.oid = i.indrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_am am ON am.oid = c.relam
  JOIN pg_opclass o ON o.oid = i.indclass[0]
 WHERE i.indrelid IN (SELECT relid FROM pg_partition_tree(%(oid)s::oid::regclass)  -- none of a table without
                       UNION
                      SELECT %(oid)s::oid::regclass
                       UNION
                      SELECT c.oid FROM pg_class c
                       WHERE c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = %(oid)s)
                         AND c.relname IN (%(name)s || '_keywords', %(name)s || '_terms'))
 ORDER BY c.relname

-- partitions --
SELECT c.relname AS name
  FROM pg_partition_tree(%(oid)s::oid::regclass) p
  JOIN pg_class c ON c.oid = p.relid
 WHERE p.isleaf AND p.level > 0
 ORDER BY length(c.relname), c.relname

-- rows_to_index --
SELECT count(*) AS rows FROM {table} WHERE embedding IS NOT NULL AND {condition}

-- server_place --
-- Where the data lie, for who may know it, and how much of the write-ahead log is kept at most.
SELECT CASE WHEN pg_has_role('pg_read_all_settings', 'USAGE') THEN current_setting('data_directory') END AS data,
       (SELECT setting::bigint * 1024 * 1024 FROM pg_settings WHERE name = 'max_wal_size') AS wal

-- progress --
-- How far a build is, and the transactions that it waits for.
SELECT p.phase, p.tuples_done, p.tuples_total, p.blocks_done, p.blocks_total,
       (SELECT jsonb_agg(jsonb_build_object('pid', a.pid, 'since', a.xact_start, 'role', a.usename, 'state', a.state,
                                            'application', a.application_name))
          FROM pg_stat_activity a
         WHERE a.pid = p.current_locker_pid AND a.pid <> 0 AND a.xact_start < now() - interval '1 second'
            OR a.pid = ANY (pg_blocking_pids(me.pid)) AND a.xact_start < now() - interval '1 second') AS waits_for
  FROM (SELECT %(pid)s::integer AS pid) AS me
  LEFT JOIN pg_stat_progress_create_index p ON p.pid = me.pid

-- backend --
SELECT pg_backend_pid() AS pid

-- oldest_transactions --
-- Who has held something for long.
SELECT pid, xact_start AS since, usename AS role, state, application_name AS application
  FROM pg_stat_activity
 WHERE datname = current_database() AND xact_start < now() - interval '1 second' AND pid <> pg_backend_pid()
 ORDER BY xact_start
 LIMIT 3
