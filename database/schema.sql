-- has_version_table --
-- Whether Alembic, or init.sql, has been here.
SELECT to_regclass('alembic_version') IS NOT NULL AS found

-- current_version --
SELECT version_num FROM alembic_version

-- available_extension --
-- The version of pgvector: the installed one, or else the one that would be.
SELECT coalesce(installed_version, default_version) AS version FROM pg_available_extensions WHERE name = 'vector'

-- has_tables --
-- Whether anything of ours is there, or a plain store's table in the place of our first.
SELECT to_regclass('public.embedding_models') IS NOT NULL OR to_regclass('public.documents_all_minilm_l6_v2') IS NOT NULL AS found

-- set_version --
UPDATE alembic_version SET version_num = %(version)s

-- lets_old_programs_in --
SELECT EXISTS (SELECT FROM pg_class, aclexplode(relacl) AS given
                WHERE oid = to_regclass('public.sources') AND given.grantee = to_regrole('synapse_app'))
   AND to_regclass('public.tenants') IS NOT NULL AND to_regrole('synapse_tenant_default') IS NOT NULL AS found

-- tables_of_old_programs --
SELECT name FROM synapse_tables_of_old_programs() AS name

-- shut_out_old_programs --
SELECT synapse_shut_out_old_programs(%(name)s)

-- may_log_in --
SELECT rolname FROM pg_roles WHERE rolname = %(role)s AND rolcanlogin
