-- takes_roles --
-- Whether who connects works through the roles of tenants: there are some, and it is neither a superuser nor the schema's owner.
SELECT NOT (r.rolsuper OR coalesce(pg_has_role(r.oid, c.relowner, 'USAGE'), false)) AS takes_roles
  FROM pg_roles r
  LEFT JOIN pg_class c ON c.oid = to_regclass('public.sources')
 WHERE r.rolname = current_user
   AND to_regrole('synapse_tenant_default') IS NOT NULL

-- has_schema --
SELECT to_regnamespace(%(schema)s) IS NOT NULL AS found

-- list_tenants --
SELECT name, created_at FROM tenants ORDER BY name

-- has_tenant --
SELECT EXISTS (SELECT FROM tenants WHERE name = %(name)s) AS found

-- create_tenant --
SELECT synapse_create_tenant(%(name)s)

-- drop_tenant --
SELECT synapse_drop_tenant(%(name)s) AS counts

-- unbound --
-- Everything by which the current role would come past the policies, with what takes it away.
WITH me AS (
    SELECT oid, rolname, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user
), bound AS (
    SELECT c.oid, c.oid::regclass::text AS name, c.relowner, c.relrowsecurity AND c.relforcerowsecurity AS closed
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p')
       AND (EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid AND polname IN ('synapse_tenant', 'synapse_tenant_rows'))
            OR (n.nspname = 'public' OR starts_with(n.nspname, 'tenant_'))
               AND c.relname IN ('sources', 'source_texts', 'source_chunks', 'metadata_fields'))
)
SELECT format('programs from before tenants are let in as %s', rolname) AS what,
       'python synapse.py database upgrade --finish' AS cure
  FROM me
 WHERE NOT rolsuper AND EXISTS (SELECT FROM pg_class, aclexplode(relacl) AS given
                                 WHERE pg_class.oid = to_regclass('public.sources') AND given.grantee = me.oid)
   AND NOT EXISTS (SELECT FROM pg_class WHERE oid = to_regclass('public.sources') AND relowner = me.oid)
 UNION ALL
SELECT format('role %s is a superuser', rolname), format('ALTER ROLE %I NOSUPERUSER', rolname) FROM me WHERE rolsuper
 UNION ALL
SELECT format('role %s has BYPASSRLS', rolname), format('ALTER ROLE %I NOBYPASSRLS', rolname) FROM me WHERE rolbypassrls
 UNION ALL
SELECT format('table %s is not closed by row-level security', name),
       format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', name)
  FROM bound WHERE NOT closed
 UNION ALL
SELECT format('role %s owns table %s, or may act as its owner', rolname, name), format('REVOKE %s FROM %I', relowner::regrole, rolname)
  FROM bound, me WHERE NOT rolsuper AND pg_has_role(me.oid, relowner, 'MEMBER')
 UNION ALL
SELECT format('role %s inherits the tenant role %s', me.rolname, r.rolname),
       format('GRANT %I TO %I WITH INHERIT FALSE', r.rolname, me.rolname)
  FROM me JOIN pg_roles r ON starts_with(r.rolname, 'synapse_tenant_')
 WHERE NOT me.rolsuper AND pg_has_role(me.oid, r.oid, 'USAGE')
 LIMIT 5
