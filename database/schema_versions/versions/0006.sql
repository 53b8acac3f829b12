-- What `recall` measured: how much of the exact answer a table's index finds, with the settings of that time.
CREATE TABLE IF NOT EXISTS recall_certificates (
    tenant text NOT NULL DEFAULT synapse_tenant(),
    table_name text NOT NULL,
    measured_at timestamptz NOT NULL DEFAULT now(),
    ef_search integer,
    top_k integer NOT NULL,
    recall double precision NOT NULL CHECK (recall BETWEEN 0 AND 1),
    lower double precision NOT NULL CHECK (lower BETWEEN 0 AND 1),
    certificate jsonb NOT NULL,
    PRIMARY KEY (tenant, table_name, measured_at)
);
SELECT synapse_bind_rows('recall_certificates');

-- Into how many partitions a model's documents tables are cut, each with an index of its own.
ALTER TABLE embedding_models
    ADD COLUMN IF NOT EXISTS partitions integer NOT NULL DEFAULT 1 CHECK (partitions BETWEEN 1 AND 1024);

-- Supabase has pgvector in a schema of its own, which only its own roles may use.
DO $$
BEGIN
    IF has_schema_privilege(to_regnamespace('extensions'), 'USAGE WITH GRANT OPTION') AND to_regrole('synapse_tenant') IS NOT NULL THEN
        GRANT USAGE ON SCHEMA extensions TO synapse_app, synapse_tenant;
    END IF;
END
$$;
