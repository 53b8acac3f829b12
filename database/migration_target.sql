-- copy_out --
-- Everything that a migrated record consists of, in binary; `plain` says that nothing stands in the columns that it has not.
COPY (SELECT id, embedding, content, meta, blob_data IS NULL AND blob_meta IS NULL AND blob_mime_type IS NULL AS plain
        FROM {table}) TO STDOUT (FORMAT binary)

-- has_rows --
SELECT EXISTS (SELECT FROM {table}) AS found

-- rows_by_id --
SELECT id, embedding, content, meta, blob_data IS NULL AND blob_meta IS NULL AND blob_mime_type IS NULL AS plain
  FROM {table}
 WHERE id = ANY(%(ids)s)

-- table_exists --
SELECT to_regclass(quote_ident(%(table)s)) IS NOT NULL AS found
