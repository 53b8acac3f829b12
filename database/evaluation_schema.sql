-- create --
CREATE SCHEMA {schema}

-- describe --
COMMENT ON SCHEMA {schema} IS {description}

-- drop --
DROP SCHEMA IF EXISTS {schema} CASCADE

-- known --
-- What earlier runs left, and what others work with now, with their descriptions.
SELECT nspname AS name, obj_description(oid, 'pg_namespace') AS description
  FROM pg_namespace
 WHERE nspname LIKE 'synapse\_evaluation\_%'
 ORDER BY nspname

-- hold --
-- For as long as the connection lives: nobody takes the schema for a leftover.
SELECT pg_try_advisory_lock(hashtext('synapse evaluation'), hashtext(%(name)s)) AS held

-- release --
SELECT pg_advisory_unlock(hashtext('synapse evaluation'), hashtext(%(name)s))

-- embedded_ids --
SELECT id FROM {table} WHERE embedding IS NOT NULL
