-- Who may read what through Supabase's API. The tables themselves stay closed to anon and authenticated; they search through
-- the functions below, which look at this table.

-- A right to read: of a source of the ledger, whose chunks it covers now and after it is indexed again, or of one document, such
-- as a migrated one, that no ledger knows. A reader is a user of Supabase; none stands for everybody, signed in or not. Rights
-- are never taken from metadata: documents bring theirs along, and would say themselves who may read them.
CREATE TABLE IF NOT EXISTS document_readers (
    source text,
    document_id varchar(128),
    reader uuid REFERENCES auth.users (id) ON DELETE CASCADE,
    CHECK (num_nonnulls(source, document_id) = 1),
    UNIQUE NULLS NOT DISTINCT (source, reader, document_id)
);
CREATE INDEX IF NOT EXISTS document_readers_document_id_idx ON document_readers (document_id, reader);
CREATE INDEX IF NOT EXISTS document_readers_reader_idx ON document_readers (reader);
ALTER TABLE document_readers ENABLE ROW LEVEL SECURITY;

-- Whether row-level security does not bind who asks: service_role, the owner in the SQL editor. A SECURITY DEFINER function
-- changes current_user, but not the setting by which the API has taken its role.
CREATE OR REPLACE FUNCTION synapse_sees_all() RETURNS boolean
LANGUAGE sql STABLE
SET search_path = ''
AS $$
    SELECT rolsuper OR rolbypassrls
      FROM pg_catalog.pg_roles
     WHERE rolname = CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role') END
$$;

-- Whether who asks may read a document of the active model, for policies: the second line, should somebody ever grant SELECT.
CREATE OR REPLACE FUNCTION synapse_may_read(document text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = public, extensions, pg_temp
AS $$
    SELECT synapse_sees_all()
        OR EXISTS (SELECT FROM document_readers
                    WHERE document_id = document AND (reader = auth.uid() OR reader IS NULL))
        OR EXISTS (SELECT FROM source_chunks c JOIN document_readers r ON r.source = c.source
                    WHERE c.model = (SELECT name FROM embedding_models WHERE active)
                      AND c.document_id = document AND (r.reader = auth.uid() OR r.reader IS NULL))
$$;
