-- parts --
-- What belongs to a documents table: its keyword tables, the index of their terms, its triggers and which of them work.
SELECT to_regclass(format('%%I.%%I', %(schema)s::text, %(name)s || '_keywords')) IS NOT NULL AS keywords,
       to_regclass(format('%%I.%%I', %(schema)s::text, %(name)s || '_terms')) IS NOT NULL AS terms,
       EXISTS (SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
                WHERE i.indrelid = to_regclass(format('%%I.%%I', %(schema)s::text, %(name)s || '_keywords'))
                  AND a.amname = 'gin') AS indexed,
       coalesce(array_agg(tgname::text ORDER BY tgname) FILTER (WHERE tgname IS NOT NULL), '{}') AS known,
       coalesce(array_agg(tgname::text ORDER BY tgname) FILTER (WHERE tgenabled IN ('O', 'A')), '{}') AS on
  FROM (SELECT tgname, tgenabled FROM pg_trigger
         WHERE tgrelid = %(oid)s AND NOT tgisinternal AND tgname LIKE 'synapse\_keywords\_%%') AS triggers

-- differences --
-- Documents without a row of keywords, and rows of keywords without a document.
SELECT (SELECT count(*) FROM {table} AS kept {pages}
         WHERE NOT EXISTS (SELECT FROM {keywords} WHERE document_id = kept.id)) AS unfiled,
       (SELECT count(*) FROM {keywords} AS filed {pages}
         WHERE NOT EXISTS (SELECT FROM {table} AS kept WHERE kept.id = filed.document_id)) AS gone
