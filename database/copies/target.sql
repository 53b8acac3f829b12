-- facts --
SELECT current_setting('server_version') AS server_version,
       current_setting('server_encoding') AS encoding,
       current_database() AS database,
       (SELECT coalesce(installed_version, default_version) FROM pg_available_extensions WHERE name = 'vector') AS pgvector_version,
       (SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE extname = 'vector') AS pgvector_schema

-- ours --
-- Tables of ours, whichever version made them; whatever else stands in public is somebody else's.
SELECT n.nspname AS schema, c.relname AS name
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p')
   AND NOT c.relispartition
   AND (n.nspname = ANY(%(schemas)s)
        OR n.nspname = 'public'
           AND (c.relname IN ('alembic_version', 'embedding_models', 'tenants', 'migration_runs', 'migration_parts', 'migration_rows',
                              'metadata_fields', 'sources', 'source_texts', 'source_chunks', 'users', 'api_keys', 'chat_sessions',
                              'chat_messages', 'feedback', 'usage_logs', 'recall_certificates')
                OR c.relname = ANY(%(documents)s)
                OR EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid AND polname IN ('synapse_tenant', 'synapse_tenant_rows'))))
 ORDER BY 1, 2

-- our_views --
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'v' AND n.nspname = 'public' AND starts_with(c.relname, 'synapse_')

-- our_functions --
SELECT p.oid::regprocedure::text AS name
  FROM pg_proc p
  JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE n.nspname = 'public' AND starts_with(p.proname, 'synapse_')
   AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = p.oid AND classid = 'pg_proc'::regclass AND deptype = 'e')

-- clashes --
-- Names that the copy needs and that are taken.
SELECT n.nspname || '.' || c.relname AS name
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname || '.' || c.relname = ANY(%(names)s)
 ORDER BY 1

-- all_tables --
-- Whatever holds rows, extensions' own tables excepted.
SELECT n.nspname || '.' || c.relname AS name
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'm')
   AND NOT c.relispartition
   AND n.nspname NOT IN ('pg_catalog', 'information_schema')
   AND n.nspname !~ '^pg_(toast|temp)'
   AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = c.oid AND classid = 'pg_class'::regclass AND deptype = 'e')

-- mark_unfinished --
-- Until the copy is whole and compared, no program works with it and no upgrade touches it.
CREATE TABLE public.alembic_version (version_num character varying(32) NOT NULL)

-- set_version --
UPDATE public.alembic_version SET version_num = %(version)s

-- role_exists --
SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %(name)s) AS found

-- is_member --
SELECT pg_has_role(%(member)s, %(role)s, 'MEMBER')
       AND pg_has_role(%(member)s, %(role)s, 'USAGE') >= %(inherit)s
       AND pg_has_role(%(member)s, %(role)s, 'SET') >= %(set)s AS found

-- i_am_member --
SELECT pg_has_role(%(role)s, 'USAGE') AND pg_has_role(%(role)s, 'SET') AS found

-- granted_by_default --
-- Rights that this server gives away on whatever is new, such as Supabase to its API's roles; the copy has its own.
SELECT DISTINCT quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name,
       CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END AS grantee
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 CROSS JOIN LATERAL aclexplode(c.relacl) a
  LEFT JOIN pg_roles r ON r.oid = a.grantee
 WHERE (n.nspname || '.' || c.relname = ANY(%(names)s)
        OR EXISTS (SELECT FROM pg_inherits i
                     JOIN pg_class whole ON whole.oid = i.inhparent
                     JOIN pg_namespace its ON its.oid = whole.relnamespace
                    WHERE i.inhrelid = c.oid AND its.nspname || '.' || whole.relname = ANY(%(names)s)))
   AND a.grantee <> c.relowner
 ORDER BY 1, 2

-- other_connections --
SELECT count(*) AS others FROM pg_stat_activity WHERE datname = %(database)s AND pid <> pg_backend_pid()

-- database_exists --
SELECT EXISTS (SELECT FROM pg_database WHERE datname = %(database)s) AS found

-- lock --
-- One copy into a database at a time.
SELECT pg_try_advisory_lock(hashtext('synapse copy')) AS free
