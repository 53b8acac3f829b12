-- fields --
SELECT name, type, index_name FROM metadata_fields WHERE table_name = %(table_name)s ORDER BY name

-- index --
-- A field's index: whether it is valid, how much is kept of its values, and whether they were looked at.
SELECT i.indisvalid AS valid, coalesce(a.attstattarget, -1) AS target,
       EXISTS (SELECT FROM pg_stats s WHERE s.schemaname = %(schema)s AND s.tablename = c.relname) AS analysed
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indexrelid
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = 1
 WHERE c.oid = to_regclass(format('%%I.%%I', %(schema)s::text, %(index)s::text))
   AND i.indrelid = to_regclass(format('%%I.%%I', %(schema)s::text, %(name)s::text))
