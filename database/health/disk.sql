-- largest_index --
SELECT c.oid::regclass::text AS name, pg_relation_size(c.oid) AS bytes
  FROM pg_class c
 WHERE c.relkind = 'i' AND c.relpersistence = 'p'
 ORDER BY c.relpages DESC, c.oid
 LIMIT 1
