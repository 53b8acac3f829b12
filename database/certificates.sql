-- save --
-- The tenant is named, as the owner of the schema has taken no role that tells it.
INSERT INTO recall_certificates (tenant, table_name, ef_search, top_k, recall, lower, certificate)
VALUES (%(tenant)s, %(table_name)s, %(ef_search)s, %(top_k)s, %(recall)s, %(lower)s, %(certificate)s::jsonb)

-- forget_oldest --
DELETE FROM recall_certificates
 WHERE tenant = %(tenant)s AND table_name = %(table_name)s
   AND measured_at < (SELECT measured_at FROM recall_certificates
                       WHERE tenant = %(tenant)s AND table_name = %(table_name)s
                       ORDER BY measured_at DESC OFFSET %(kept)s - 1 LIMIT 1)

-- newest --
SELECT table_name, measured_at, ef_search, top_k, recall, lower, coalesce((certificate ->> 'rows')::bigint, 0) AS rows, certificate
  FROM recall_certificates
 WHERE tenant = %(tenant)s AND table_name = %(table_name)s
 ORDER BY measured_at DESC
 LIMIT 1
