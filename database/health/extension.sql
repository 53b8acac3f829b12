-- extension --
-- The installed version, the newest that the server has, and how many IVFFlat indexes there are.
SELECT (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS installed,
       (SELECT default_version FROM pg_available_extensions WHERE name = 'vector') AS available,
       (SELECT count(*) FROM pg_class c JOIN pg_am a ON a.oid = c.relam WHERE a.amname = 'ivfflat') AS ivfflat

-- place --
SELECT n.nspname AS schema, to_regtype('vector') IS NOT NULL AS found
  FROM pg_extension e
  JOIN pg_namespace n ON n.oid = e.extnamespace
 WHERE e.extname = 'vector'
