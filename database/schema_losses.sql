-- partitioned --
-- Models whose documents tables are cut into partitions; through JSON, as versions below 0006 have no such column.
SELECT name, table_name, (to_jsonb(m) ->> 'partitions')::integer AS partitions
  FROM public.embedding_models AS m
 WHERE (to_jsonb(m) ->> 'partitions')::integer > 1
 ORDER BY name

-- documents_tables --
-- Those that stand in a tenant's schema.
SELECT table_name FROM public.embedding_models WHERE to_regclass(format('%%I.%%I', %(place)s::text, table_name)) IS NOT NULL
