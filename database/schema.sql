-- has_version_table --
-- Whether Alembic, or init.sql, has been here.
SELECT to_regclass('alembic_version') IS NOT NULL AS found

-- current_version --
SELECT version_num FROM alembic_version

-- available_extension --
-- The version of pgvector: the installed one, or else the one that would be.
SELECT coalesce(installed_version, default_version) AS version FROM pg_available_extensions WHERE name = 'vector'

-- server_facts --
SELECT current_setting('server_version') AS server_version,
       (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS pgvector_version,
       current_user AS role,
       (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS superuser,
       pg_database_size(current_database()) AS size

-- our_tables --
-- Rows are the planner's estimate; an exact count reads the whole table.
SELECT c.relname AS name,
       greatest(c.reltuples, 0)::bigint AS estimated_rows,
       pg_total_relation_size(c.oid) AS size
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r'
   AND n.nspname = current_schema()
 ORDER BY c.relname

-- invalid_indexes --
-- Left over from an index build that failed; the planner never uses them.
SELECT c.relname AS name
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indexrelid
 WHERE NOT i.indisvalid
 ORDER BY c.relname

-- may_log_in --
SELECT rolname FROM pg_roles WHERE rolname = %(role)s AND rolcanlogin
