-- count --
SELECT count(*) FROM {table}

-- dimension --
-- The one that most rows have; lengths are known without fetching what is stored aside.
SELECT octet_length({embedding}) / 4
  FROM {table}
 WHERE octet_length({embedding}) > 0 AND octet_length({embedding}) %% 4 = 0
 GROUP BY 1
 ORDER BY count(*) DESC, 1
 LIMIT 1

-- sample --
SELECT {embedding} FROM {table} WHERE {embedding} IS NOT NULL LIMIT %(limit)s

-- page --
-- The id stands among the columns as text, but the order is its own.
SELECT {columns} FROM {table} t WHERE {beyond} ORDER BY t.{id} LIMIT %(limit)s

-- fingerprint --
-- Sums, so that no row has to wait for another; each hash tells one row from any other in 2^64.
SELECT count(*), sum(hashtextextended(ROW({columns})::text, 0)), sum(hashtextextended(ROW({columns})::text, 1)) FROM {table}
