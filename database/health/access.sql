-- me --
SELECT current_user AS name, to_regrole('synapse_tenant_default') IS NOT NULL AS tenants

-- rights --
-- Rights that everyone, or an interface's role, has on tables and views of ours: what one of our roles may use as well.
SELECT c.oid::regclass::text AS name, coalesce(quote_ident(r.rolname), 'PUBLIC') AS role, coalesce(r.rolname, 'Everyone') AS shown,
       string_agg(DISTINCT acl.privilege_type, ', ' ORDER BY acl.privilege_type) AS rights
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  CROSS JOIN LATERAL aclexplode(c.relacl) AS acl
  LEFT JOIN pg_roles r ON r.oid = acl.grantee
 WHERE c.relkind IN ('r', 'p', 'v')
   AND (n.nspname = 'public' OR starts_with(n.nspname, 'tenant_'))
   AND (acl.grantee = 0 OR r.rolname IN ('anon', 'authenticated'))
   AND (c.relname IN ('alembic_version', 'tenants')
        OR EXISTS (SELECT FROM aclexplode(c.relacl) AS ours JOIN pg_roles o ON o.oid = ours.grantee
                    WHERE o.rolname = 'synapse_app' OR o.rolname = 'synapse_tenant' OR starts_with(o.rolname, 'synapse_tenant_')))
 GROUP BY c.oid, r.rolname
 ORDER BY 1, 2
