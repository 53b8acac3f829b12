-- The tenants that there are. `default` is who nobody else is: its tables stand in public.
CREATE TABLE IF NOT EXISTS tenants (
    name text PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT now()
);
DO $$
BEGIN
    PERFORM synapse_close('public', name) FROM unnest(ARRAY['tenants', 'embedding_models', 'alembic_version', 'migration_runs',
                                                            'migration_parts', 'migration_rows']) AS name;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'synapse_app') THEN
        RETURN;  -- whoever may create no role has no tenants but `default`, whose role the application then is
    END IF;
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'synapse_tenant') THEN
            CREATE ROLE synapse_tenant NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE;
        END IF;
    EXCEPTION
        WHEN insufficient_privilege THEN
            RAISE NOTICE 'tenants are not made: this user may not create roles';
            RETURN;
        WHEN duplicate_object OR unique_violation THEN NULL;
    END;
    -- What every tenant may read of what belongs to none.
    GRANT SELECT ON tenants TO synapse_app;
    GRANT SELECT ON embedding_models, alembic_version TO synapse_app, synapse_tenant;
    PERFORM synapse_create_tenant_role('default');
END
$$;
