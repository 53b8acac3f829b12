-- list_models --
SELECT name, model, dimension, table_name, vector_type, language, partitions, active
  FROM embedding_models
 ORDER BY created_at, name

-- active_model --
SELECT name, model, dimension, table_name, vector_type, language, partitions, active
  FROM embedding_models
 WHERE active

-- model_names_and_tables --
-- The keyword tables of a documents table are named after it.
SELECT name, table_name
  FROM embedding_models
 WHERE name = %(name)s
    OR %(table_name)s IN (table_name, table_name || '_keywords', table_name || '_terms')
    OR table_name IN (%(table_name)s || '_keywords', %(table_name)s || '_terms')

-- create_table --
SELECT synapse_create_documents_table(%(table_name)s, %(dimension)s, %(vector_type)s, %(language)s, partitions => %(partitions)s)

-- create_tenants_tables --
SELECT synapse_create_tenants_documents(%(table_name)s, %(dimension)s, %(vector_type)s, %(language)s, %(partitions)s)

-- add_model --
INSERT INTO embedding_models (name, model, dimension, table_name, vector_type, language, partitions, active)
VALUES (%(name)s, %(model)s, %(dimension)s, %(table_name)s, %(vector_type)s, %(language)s, %(partitions)s,
        NOT EXISTS (SELECT FROM embedding_models))

-- deactivate --
UPDATE embedding_models SET active = false WHERE active

-- activate --
UPDATE embedding_models SET active = true WHERE name = %(name)s

-- delete_sources --
-- Texts and chunk numbers follow by their foreign keys.
DELETE FROM sources WHERE model = %(name)s

-- delete_fields --
DELETE FROM metadata_fields WHERE table_name = %(table_name)s

-- delete_model --
DELETE FROM embedding_models WHERE name = %(name)s
