-- What there is belongs to the tenant `default`.
DO $$
BEGIN
    IF to_regrole('synapse_tenant_default') IS NOT NULL THEN
        PERFORM synapse_create_tenant('default');
        GRANT SELECT ON migration_runs, migration_parts, migration_rows TO synapse_tenant_default;
    END IF;
END
$$;
