-- installed --
-- The type with its schema, and whether the default path leads to it.
SELECT format('%I.%I', n.nspname, t.typname) AS type, n.nspname IN ('public', 'extensions', 'pg_catalog') AS reachable
  FROM pg_extension e
  JOIN pg_namespace n ON n.oid = e.extnamespace
  JOIN pg_type t ON t.typnamespace = n.oid AND t.typname = 'vector'
 WHERE e.extname = 'vector'

-- create --
CREATE TEMPORARY TABLE synapse_doctor (id integer, embedding vector(3)) ON COMMIT DROP

-- insert --
INSERT INTO synapse_doctor VALUES (1, '[1, 0, 0]'), (2, '[0, 0, 1]'), (3, '[0.5, 0.5, 0]')

-- index --
CREATE INDEX ON synapse_doctor USING hnsw (embedding vector_cosine_ops)

-- settings --
SELECT set_config('enable_seqscan', 'off', true)

-- nearest --
SELECT id FROM synapse_doctor ORDER BY embedding <=> '[0.9, 0.1, 0]' LIMIT 3
