-- Metadata fields that are filtered often: each has an index of its own on the documents table.
CREATE TABLE IF NOT EXISTS metadata_fields (
    table_name text NOT NULL,
    name text NOT NULL,
    type text NOT NULL CHECK (type IN ('number', 'text', 'boolean', 'date')),
    index_name text NOT NULL,
    declared_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (table_name, name)
);
DO $$
DECLARE
    role_name text;
BEGIN
    REVOKE ALL ON metadata_fields FROM PUBLIC;
    FOR role_name IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated') LOOP
        EXECUTE format('REVOKE ALL ON metadata_fields FROM %I', role_name);
    END LOOP;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'synapse_app') THEN
        GRANT SELECT ON metadata_fields TO synapse_app;
    END IF;
END
$$;
