-- create_keywords --
SELECT synapse_create_keywords('public', %(table)s, %(language)s)

-- without_keywords --
SELECT count(*) AS missing FROM {documents} AS d WHERE NOT EXISTS (SELECT FROM {keywords} WHERE document_id = d.id)

-- file_keywords --
SELECT last_id, filed FROM synapse_file_keywords(%(table)s::regclass, %(after)s, %(size)s)

-- analyze_keywords --
ANALYZE {keywords}, {terms}

-- drop_keywords --
DROP TRIGGER IF EXISTS synapse_keywords_insert ON {documents};
DROP TRIGGER IF EXISTS synapse_keywords_update ON {documents};
DROP TRIGGER IF EXISTS synapse_keywords_delete ON {documents};
DROP TRIGGER IF EXISTS synapse_keywords_truncate ON {documents};
DROP TABLE IF EXISTS {keywords}, {terms}

-- bind_table --
SELECT synapse_bind_table('public', %(table)s, %(rights)s)

-- unbind_table --
SELECT synapse_unbind_table(%(table)s, %(rights)s)

-- indexes_of_fields --
SELECT index_name FROM public.metadata_fields ORDER BY index_name

-- without_index --
-- Documents tables without their search index, but those that are being loaded.
SELECT table_name, vector_type
  FROM public.embedding_models
 WHERE to_regclass(format('public.%I', table_name || '_hnsw_index')) IS NULL
   AND coalesce(obj_description(to_regclass(format('public.%I', table_name)), 'pg_class'), '') NOT LIKE 'synapse bulk load %'
 ORDER BY table_name

-- other_tenants --
SELECT name FROM public.tenants WHERE name <> 'default' ORDER BY name
