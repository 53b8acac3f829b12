-- What the API's roles may do: call the search functions. Supabase grants them every new table, view and function in public, so
-- this is for `database upgrade` and `models add`, too: run `SELECT synapse_serve_api()` after them.
CREATE OR REPLACE FUNCTION synapse_serve_api() RETURNS void
LANGUAGE plpgsql
SET search_path = public, extensions, pg_temp
AS $$
DECLARE
    closed record;
    model record;
BEGIN
    FOR closed IN
        SELECT CASE WHEN kind = 'r' THEN 'TABLE' ELSE 'FUNCTION' END AS kind, name
          FROM (SELECT 'f' AS kind, oid::regprocedure::text AS name FROM pg_proc
                 WHERE pronamespace = 'public'::regnamespace AND starts_with(proname, 'synapse_')
                 UNION ALL
                SELECT 'r', oid::regclass::text FROM pg_class
                 WHERE relnamespace = 'public'::regnamespace AND relkind = 'v' AND starts_with(relname, 'synapse_')) AS ours
    LOOP
        EXECUTE format('REVOKE ALL ON %s %s FROM PUBLIC, anon, authenticated', closed.kind, closed.name);
        IF closed.kind = 'FUNCTION' THEN  -- triggers run as who writes
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO service_role, synapse_app, synapse_tenant', closed.name);
        END IF;
    END LOOP;
    GRANT EXECUTE ON FUNCTION synapse_may_read TO anon, authenticated;

    FOR model IN SELECT table_name FROM embedding_models LOOP
        EXECUTE format('CREATE INDEX IF NOT EXISTS %I ON %I USING gin (meta jsonb_path_ops)',
                       model.table_name || '_meta_index', model.table_name);
        -- The second line: should SELECT be granted on the table one day, it shows what the functions show.
        EXECUTE format('DROP POLICY IF EXISTS synapse_readers ON %I', model.table_name);
        EXECUTE format('CREATE POLICY synapse_readers ON %I FOR SELECT TO anon, authenticated USING (synapse_may_read(id))',
                       model.table_name);
    END LOOP;
END
$$;

REVOKE ALL ON document_readers FROM PUBLIC, anon, authenticated;
GRANT ALL ON document_readers TO service_role;
REVOKE ALL ON FUNCTION match_documents, search_documents, hybrid_search FROM PUBLIC;
GRANT EXECUTE ON FUNCTION match_documents, search_documents, hybrid_search TO anon, authenticated, service_role;
SELECT synapse_serve_api();
