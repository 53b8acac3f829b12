DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT format('%I', relname) FROM pg_class
                 WHERE relnamespace = 'public'::regnamespace AND relkind = 'v' AND starts_with(relname, 'synapse_') LOOP
        EXECUTE format('DROP VIEW IF EXISTS %s CASCADE', name);  -- some stand on others
    END LOOP;
END
$$;
DROP FUNCTION IF EXISTS synapse_ledger_days(), synapse_quarantine(), synapse_statements();
DROP TABLE IF EXISTS recall_certificates;
ALTER TABLE embedding_models DROP COLUMN IF EXISTS partitions;
