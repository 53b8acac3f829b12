-- has_version_table --
SELECT to_regclass('public.alembic_version') IS NOT NULL AS found

-- versions --
SELECT version_num FROM public.alembic_version

-- missing --
-- What every database at our version has in public.
SELECT name
  FROM unnest(ARRAY['embedding_models', 'sources', 'source_texts', 'source_chunks', 'metadata_fields', 'migration_runs',
                    'migration_parts', 'migration_rows', 'tenants', 'users', 'api_keys', 'chat_sessions', 'chat_messages',
                    'feedback', 'usage_logs', 'recall_certificates']) AS name
 WHERE to_regclass('public.' || name) IS NULL
 UNION ALL
SELECT name || '()'
  FROM unnest(ARRAY['synapse_create_documents_table', 'synapse_bind_table', 'synapse_tenant', 'synapse_create_tenant',
                    'synapse_create_tenants_documents', 'synapse_drop_tenant', 'synapse_number', 'synapse_instant', 'synapse_terms',
                    'synapse_weights', 'synapse_text_search', 'synapse_parsing', 'synapse_keywords_statement',
                    'synapse_update_keywords', 'synapse_rebuild_keywords']) AS name
 WHERE NOT EXISTS (SELECT FROM pg_proc WHERE proname = name AND pronamespace = to_regnamespace('public'))
 ORDER BY 1
