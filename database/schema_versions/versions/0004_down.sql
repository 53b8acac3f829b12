DROP TABLE IF EXISTS tenants;
DO $$
BEGIN
    IF to_regrole('synapse_app') IS NOT NULL THEN
        GRANT SELECT ON migration_runs, migration_parts, migration_rows TO synapse_app;
    END IF;
END
$$;
