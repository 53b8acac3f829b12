-- facts --
-- What a database is; who started it and when tells two names of one server from two servers.
SELECT current_setting('server_version') AS server_version,
       current_setting('server_version_num')::integer / 10000 AS major,
       current_setting('server_encoding') AS encoding,
       (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS pgvector_version,
       (SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE extname = 'vector') AS pgvector_schema,
       (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user) AS bypasses,
       current_database() AS database,
       format('%s %s', (SELECT oid FROM pg_database WHERE datname = current_database()),
              extract(epoch FROM pg_postmaster_start_time())) AS identity

-- schemas --
-- public, and the schemas of tenants.
SELECT nspname AS name FROM pg_namespace WHERE nspname = 'public' OR nspname ~ '^tenant_[a-z][a-z0-9_]{0,39}$' ORDER BY 1

-- tables --
-- With the columns that are copied, and for each the function that gives a value's bytes: types whose bytes hold numbers of this
-- database's catalog, or that have none, are taken as text.
SELECT n.nspname AS schema, c.relname AS name, c.oid,
       CASE c.relkind WHEN 'p' THEN (SELECT sum(pg_table_size(p.relid))::bigint FROM pg_partition_tree(c.oid) p WHERE p.isleaf)
                      ELSE pg_table_size(c.oid) END AS size,
       row_security_active(c.oid) AS bound,
       EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid AND polname = 'synapse_tenant_rows') AS shared,
       EXISTS (SELECT FROM pg_policy p, unnest(p.polroles) r(role)
                WHERE p.polrelid = c.oid AND polname = 'synapse_tenant' AND r.role <> 0 AND pg_has_role(r.role, 'USAGE')) AS open,
       (SELECT coalesce(jsonb_agg(jsonb_build_object(
                   'name', a.attname,
                   'copied', a.attgenerated = '',
                   'schema', CASE WHEN plain THEN f.nspname END,
                   'send', CASE WHEN plain THEN f.proname END) ORDER BY a.attnum), '[]')
          FROM pg_attribute a
          JOIN pg_type t ON t.oid = a.atttypid
          LEFT JOIN LATERAL (SELECT fn.nspname, p.proname FROM pg_proc p JOIN pg_namespace fn ON fn.oid = p.pronamespace
                              WHERE p.oid = t.typsend) f ON true
          CROSS JOIN LATERAL (SELECT f.proname IS NOT NULL AND (t.typtype = 'b' OR t.typtype = 'e')
                                     AND (t.typelem = 0 OR t.typelem < 16384) AS plain) k
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = ANY(%(schemas)s)
   AND c.relkind IN ('r', 'p')
   AND NOT c.relispartition
   AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = c.oid AND classid = 'pg_class'::regclass AND deptype = 'e')
 ORDER BY 1, 2

-- checksum --
-- Rows, and the sum of their hashes: whatever order they come in, it is the same. OFFSET 0 keeps a hash from being made twice.
SELECT count(*) AS rows,
       coalesce(sum(('x' || encode(substr(hash, 1, 8), 'hex'))::bit(64)::bigint), 0) AS high,
       coalesce(sum(('x' || encode(substr(hash, 9, 8), 'hex'))::bit(64)::bigint), 0) AS low
  FROM (SELECT sha256(array_send(ARRAY[{columns}]::bytea[])) AS hash FROM {table} OFFSET 0) hashed

-- has_rows --
SELECT EXISTS (SELECT FROM {table}) AS found

-- roles --
-- Ours alone; never a password.
SELECT rolname AS name FROM pg_roles WHERE rolname ~ '^synapse_(app|tenant(_[a-z][a-z0-9_]{0,39})?)$' ORDER BY 1

-- memberships --
SELECT r.rolname AS role, m.rolname AS member, a.inherit_option AS inherit, a.set_option AS set
  FROM pg_auth_members a
  JOIN pg_roles r ON r.oid = a.roleid
  JOIN pg_roles m ON m.oid = a.member
 WHERE r.rolname = ANY(%(roles)s) AND m.rolname = ANY(%(roles)s)
 ORDER BY 1, 2

-- sequences --
SELECT schemaname AS schema, sequencename AS name, start_value, last_value FROM pg_sequences WHERE schemaname = ANY(%(schemas)s) ORDER BY 1, 2

-- version --
SELECT version_num FROM public.alembic_version

-- models --
SELECT name, table_name, dimension, vector_type, language FROM public.embedding_models ORDER BY name

-- tenants --
SELECT name FROM public.tenants ORDER BY name

-- exists --
SELECT to_regclass(%(name)s) IS NOT NULL AS found
