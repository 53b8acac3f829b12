-- Tenants. Each has a role of its own, which a transaction takes, and its documents with their ledger in a schema of its own:
-- `synapse_tenant_acme` and `tenant_acme`; the tenant `default` has the schema public. On these tables, the only policy is that
-- the tenant's role may do everything, so that no condition stands between a filter and its index: under a policy that looks
-- at rows or settings, PostgreSQL gives jsonb and array operators no index, as they are not leakproof.

-- The tenant whose role the transaction has taken; NULL where none is taken. For policies of tables that all tenants share.
CREATE OR REPLACE FUNCTION synapse_tenant() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN starts_with(current_user, 'synapse_tenant_') THEN substr(current_user, 16) END
$$;

-- Close a table or view to everyone but its owner; to Supabase's API roles, too, who get new ones by default.
CREATE OR REPLACE FUNCTION synapse_close(place text, name text) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    role_name text;
BEGIN
    EXECUTE format('REVOKE ALL ON %I.%I FROM PUBLIC', place, name);
    FOR role_name IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated') LOOP
        EXECUTE format('REVOKE ALL ON %I.%I FROM %I', place, name, role_name);
    END LOOP;
END
$$;

-- Whether programs from before tenants (schema versions below 0004) are let in: they use the default tenant's tables as
-- `synapse_app`, and take no role. An upgrade that finds documents leaves it so, until `database upgrade --finish`.
CREATE OR REPLACE FUNCTION synapse_lets_old_programs_in() RETURNS boolean
LANGUAGE sql STABLE
AS $$
    SELECT EXISTS (SELECT FROM pg_class, aclexplode(relacl) AS given
                    WHERE oid = to_regclass('public.sources') AND given.grantee = to_regrole('synapse_app'))
       AND to_regrole('synapse_tenant_default') IS NOT NULL
$$;

-- Tables of the default tenant that are open to programs from before tenants; `sources`, which tells, last.
CREATE OR REPLACE FUNCTION synapse_tables_of_old_programs() RETURNS SETOF text
LANGUAGE sql STABLE
AS $$
    SELECT relname
      FROM pg_class
     WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
       AND relname NOT IN ('alembic_version', 'embedding_models', 'tenants')
       AND EXISTS (SELECT FROM aclexplode(relacl) AS given WHERE given.grantee = to_regrole('synapse_app'))
       AND to_regrole('synapse_tenant_default') IS NOT NULL
     ORDER BY relname = 'sources', relname
$$;

-- Take one of them from programs from before tenants.
CREATE OR REPLACE FUNCTION synapse_shut_out_old_programs(name text) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    EXECUTE format('REVOKE ALL ON public.%I FROM synapse_app', name);
    IF EXISTS (SELECT FROM pg_policy WHERE polrelid = format('public.%I', name)::regclass AND polname = 'synapse_tenant') THEN
        EXECUTE format('ALTER POLICY synapse_tenant ON public.%I TO synapse_tenant_default', name);
    END IF;
END
$$;

-- Close a table to everyone but its tenant, as its schema tells; Supabase's API roles and the owner included. Elsewhere, and where
-- there are no roles of tenants, the application's role itself may use it.
CREATE OR REPLACE FUNCTION synapse_bind_table(place text, name text, rights text DEFAULT 'SELECT, INSERT, UPDATE, DELETE')
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    tenant text := CASE WHEN place = 'public' THEN 'default' WHEN starts_with(place, 'tenant_') THEN substr(place, 8) END;
    bound text := (SELECT rolname FROM pg_roles WHERE rolname = 'synapse_tenant_' || tenant);
    application text := (SELECT rolname FROM pg_roles WHERE rolname = 'synapse_app');
    lets_old_programs_in boolean := place = 'public' AND synapse_lets_old_programs_in();
BEGIN
    PERFORM synapse_close(place, name);
    IF application IS NOT NULL AND (bound IS NULL OR lets_old_programs_in) THEN
        EXECUTE format('GRANT %s ON %I.%I TO synapse_app', rights, place, name);
    ELSIF application IS NOT NULL THEN
        EXECUTE format('REVOKE ALL ON %I.%I FROM synapse_app', place, name);
    END IF;
    IF bound IS NULL THEN
        RETURN;
    END IF;
    EXECUTE format('GRANT %s ON %I.%I TO %I', rights, place, name, bound);
    IF NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = format('%I.%I', place, name)::regclass AND polname = 'synapse_tenant') THEN
        EXECUTE format('ALTER TABLE %I.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', place, name);
        EXECUTE format('CREATE POLICY synapse_tenant ON %I.%I TO %I%s USING (true) WITH CHECK (true)', place, name, bound,
                       CASE WHEN lets_old_programs_in THEN ', synapse_app' ELSE '' END);
    END IF;
END
$$;

-- Open a table of the default tenant again, to its role and to programs from before tenants: for a downgrade.
CREATE OR REPLACE FUNCTION synapse_unbind_table(name text, rights text DEFAULT 'SELECT, INSERT, UPDATE, DELETE') RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF to_regrole('synapse_app') IS NOT NULL THEN
        EXECUTE format('GRANT %s ON public.%I TO synapse_app', rights, name);
    END IF;
    IF EXISTS (SELECT FROM pg_policy WHERE polrelid = format('public.%I', name)::regclass AND polname = 'synapse_tenant') THEN
        EXECUTE format('DROP POLICY synapse_tenant ON public.%I', name);
        EXECUTE format('ALTER TABLE public.%I DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY', name);
    END IF;
END
$$;

-- Give a table that all tenants share, with a column `tenant`, to the tenants: each sees and writes its own rows.
CREATE OR REPLACE FUNCTION synapse_bind_rows(name text) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', name);
    EXECUTE format('DROP POLICY IF EXISTS synapse_tenant_rows ON %I', name);
    EXECUTE format(
        'CREATE POLICY synapse_tenant_rows ON %I USING (tenant = synapse_tenant()) WITH CHECK (tenant = synapse_tenant())', name);
    PERFORM synapse_close('public', name);
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'synapse_tenant') THEN
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO synapse_tenant', name);
    END IF;
END
$$;

-- The role of a tenant, taken by `synapse_app` and by the owner; what is there already stays.
CREATE OR REPLACE FUNCTION synapse_create_tenant_role(tenant text) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    bound text := 'synapse_tenant_' || tenant;
BEGIN
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = bound) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE', bound);
        END IF;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;  -- in another database of this server, just now
    END;
    -- Taken, never inherited: without a tenant, the application sees nothing. An owner that policies bind inherits it. What is
    -- granted already is left: roles belong to all databases of a server, and may be another owner's to grant.
    IF NOT pg_has_role(bound, 'synapse_tenant', 'USAGE') THEN
        EXECUTE format('GRANT synapse_tenant TO %I', bound);
    END IF;
    IF NOT pg_has_role('synapse_app', bound, 'SET') THEN
        EXECUTE format('GRANT %I TO synapse_app WITH INHERIT FALSE, SET TRUE', bound);
    END IF;
    IF NOT pg_has_role(bound, 'USAGE') THEN
        EXECUTE format('GRANT %I TO CURRENT_USER WITH INHERIT TRUE, SET TRUE', bound);
    END IF;
END
$$;

-- A tenant with its role, its schema, its ledger and a documents table per embedding model; what is there already stays.
CREATE OR REPLACE FUNCTION synapse_create_tenant(tenant text) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    place text := CASE tenant WHEN 'default' THEN 'public' ELSE 'tenant_' || tenant END;
    bound text := 'synapse_tenant_' || tenant;
    path text := current_setting('search_path');
    name text;
    model record;
BEGIN
    IF tenant !~ '^[a-z][a-z0-9_]{0,39}$' THEN
        RAISE EXCEPTION 'a tenant''s name has 1 to 40 of a to z, 0 to 9 and _, a letter first, but is %', tenant
            USING ERRCODE = '22023';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('synapse schema'));
    PERFORM synapse_create_tenant_role(tenant);

    IF tenant <> 'default' THEN
        EXECUTE format('CREATE SCHEMA IF NOT EXISTS %I', place);
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', place, bound);
        FOREACH name IN ARRAY ARRAY['sources', 'source_texts', 'source_chunks', 'metadata_fields'] LOOP
            EXECUTE format('CREATE TABLE IF NOT EXISTS %I.%I (LIKE public.%I INCLUDING ALL)', place, name, name);
        END LOOP;
        IF NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = format('%I.sources', place)::regclass AND contype = 'f') THEN
            EXECUTE format('ALTER TABLE %I.sources ADD FOREIGN KEY (model) REFERENCES public.embedding_models (name)', place);
            FOREACH name IN ARRAY ARRAY['source_texts', 'source_chunks'] LOOP
                EXECUTE format('ALTER TABLE %I.%I ADD FOREIGN KEY (model, source) REFERENCES %I.sources
                                    ON UPDATE CASCADE ON DELETE CASCADE', place, name, place);
            END LOOP;
        END IF;
    END IF;
    FOREACH name IN ARRAY ARRAY['sources', 'source_texts', 'source_chunks', 'metadata_fields'] LOOP
        PERFORM synapse_bind_table(place, name,
            CASE name WHEN 'metadata_fields' THEN 'SELECT' ELSE 'SELECT, INSERT, UPDATE, DELETE' END);
    END LOOP;
    PERFORM set_config('search_path', CASE tenant WHEN 'default' THEN path ELSE place || ', public, extensions' END, true);
    FOR model IN SELECT * FROM public.embedding_models LOOP
        PERFORM synapse_create_documents_table(
            model.table_name, model.dimension, model.vector_type, model.language,
            partitions => coalesce((to_jsonb(model) ->> 'partitions')::integer, 1));  -- of versions that know partitions
    END LOOP;
    PERFORM set_config('search_path', path, true);
    INSERT INTO public.tenants (name) VALUES (tenant) ON CONFLICT DO NOTHING;
END
$$;

-- A model's documents table for every tenant that has none of that name yet.
DROP FUNCTION IF EXISTS synapse_create_tenants_documents(text, integer, text, text);  -- before partitions
CREATE OR REPLACE FUNCTION synapse_create_tenants_documents(
    table_name text, dimension integer, vector_type text, language text, partitions integer DEFAULT 1
) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    path text := current_setting('search_path');
    place text;
BEGIN
    FOR place IN SELECT CASE tenants.name WHEN 'default' THEN 'public' ELSE 'tenant_' || tenants.name END FROM public.tenants LOOP
        IF to_regclass(format('%I.%I', place, table_name)) IS NULL THEN
            PERFORM set_config('search_path', place || ', public, extensions', true);
            PERFORM synapse_create_documents_table(table_name, dimension, vector_type, language, partitions => partitions);
        END IF;
    END LOOP;
    PERFORM set_config('search_path', path, true);
END
$$;

-- Everything of a tenant: its schema, its rows in the tables that all tenants share, its role. Returns the rows that went, by table.
CREATE OR REPLACE FUNCTION synapse_drop_tenant(tenant text) RETURNS jsonb
LANGUAGE plpgsql
AS $$
DECLARE
    bound text := 'synapse_tenant_' || tenant;
    counts jsonb := '{}';
    shared record;
    gone bigint;
BEGIN
    IF tenant = 'default' OR NOT EXISTS (SELECT FROM public.tenants WHERE name = tenant) THEN
        RAISE EXCEPTION 'a tenant other than default was expected, but % is none', tenant USING ERRCODE = '22023';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('synapse schema'));
    PERFORM set_config('role', bound, true);  -- the policies of shared tables bind an owner, too
    FOR shared IN SELECT polrelid::regclass AS name FROM pg_policy WHERE polname = 'synapse_tenant_rows' ORDER BY polrelid LOOP
        EXECUTE format('WITH gone AS (DELETE FROM %s RETURNING 1) SELECT count(*) FROM gone', shared.name) INTO gone;
        counts := counts || jsonb_build_object(shared.name::text, gone);
    END LOOP;
    PERFORM set_config('role', 'none', true);
    EXECUTE format('DROP SCHEMA %I CASCADE', 'tenant_' || tenant);
    DELETE FROM public.tenants WHERE name = tenant;
    EXECUTE format('DROP OWNED BY %I', bound);
    BEGIN
        EXECUTE format('DROP ROLE %I', bound);
    EXCEPTION WHEN dependent_objects_still_exist THEN NULL;  -- a tenant of that name in another database of this server
    END;
    RETURN counts;
END
$$;
