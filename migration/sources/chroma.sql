-- tables --
SELECT name FROM sqlite_master WHERE type IN ('table', 'view')

-- columns --
SELECT name FROM pragma_table_info(:table)

-- metadata_by_rows --
-- Two sums that differ if the index by which metadata is found leads to other rows; the check that SQLite has for it looks
-- up each row in each index, which takes longer than reading everything.
SELECT COUNT(*), SUM((id * 31 + unicode(key) * 7 + length(key)) * rowid & 0xffffffffff)
  FROM embedding_metadata NOT INDEXED

-- metadata_by_index --
SELECT COUNT(*), SUM((id * 31 + unicode(key) * 7 + length(key)) * rowid & 0xffffffffff)
  FROM embedding_metadata INDEXED BY sqlite_autoindex_embedding_metadata_1

-- strange_types --
-- SQLite keeps what it is given, whatever a column is declared as.
SELECT 'collections' WHERE EXISTS (
    SELECT 1 FROM collections
     WHERE typeof(id) <> 'text' OR typeof(name) <> 'text' OR typeof(dimension) NOT IN ('integer', 'null'))
 UNION ALL
SELECT 'segments' WHERE EXISTS (
    SELECT 1 FROM segments WHERE typeof(id) <> 'text' OR typeof(type) <> 'text' OR typeof(scope) <> 'text')
 UNION ALL
SELECT 'migrations' WHERE EXISTS (
    SELECT 1 FROM migrations WHERE typeof(dir) <> 'text' OR typeof(version) <> 'integer')
 UNION ALL
SELECT 'embeddings' WHERE EXISTS (SELECT 1 FROM embeddings WHERE typeof(embedding_id) <> 'text')
 UNION ALL
SELECT 'embedding_metadata' WHERE EXISTS (SELECT 1 FROM embedding_metadata WHERE typeof(key) <> 'text')
 UNION ALL
SELECT 'embeddings_queue' WHERE EXISTS (
    SELECT 1 FROM embeddings_queue
     WHERE typeof(id) <> 'text' OR typeof(topic) <> 'text' OR typeof(operation) <> 'integer')

-- log_topics --
SELECT topic, COUNT(*), MAX(seq_id) FROM embeddings_queue GROUP BY topic ORDER BY topic

-- temporary_tables --
-- What is found out about a directory lies in SQLite's temporary file, not in memory. `row` is a row of `embeddings`.
-- topics: which topic of the log belongs to which part, its metadata segment, and how far that has applied the log.
-- replayed: ids for which the log is needed. altered: rows that it changes. added: ids that only the log holds.
-- indexed: elements of one segment. logged: entry of the log with the newest vector; NULL is none any more.
-- placed: where each row's vector is. lost: rows whose vector is nowhere, as far as the segments go.
CREATE TEMP TABLE topics (topic TEXT PRIMARY KEY, part INTEGER, segment TEXT, applied INTEGER);
CREATE TEMP TABLE replayed (part INTEGER, id TEXT, PRIMARY KEY (part, id)) WITHOUT ROWID;
CREATE TEMP TABLE altered (row INTEGER PRIMARY KEY, part INTEGER, gone INTEGER, patch TEXT);
CREATE TEMP TABLE added (seq INTEGER PRIMARY KEY, part INTEGER, id TEXT, patch TEXT, element INTEGER, vector INTEGER);
CREATE TEMP TABLE indexed (id BLOB, element INTEGER);
CREATE TEMP TABLE logged (id BLOB PRIMARY KEY, seq INTEGER) WITHOUT ROWID;
CREATE TEMP TABLE lost (id BLOB PRIMARY KEY, row INTEGER) WITHOUT ROWID;
CREATE TEMP TABLE placed (
    part INTEGER, row INTEGER, element INTEGER, seq INTEGER, altered INTEGER, recovered INTEGER,
    PRIMARY KEY (part, row)
) WITHOUT ROWID;

-- meta_values --
-- As the table is from 0.4.4 on.
CREATE TEMP VIEW meta_values AS
SELECT id, key, string_value, int_value, float_value, bool_value FROM embedding_metadata;

-- meta_values_without_booleans --
CREATE TEMP VIEW meta_values AS
SELECT id, key, string_value, int_value, float_value, NULL AS bool_value FROM embedding_metadata;

-- meta_lists --
-- From 1.5 on.
CREATE TEMP VIEW meta_lists AS
SELECT id, key, string_value, int_value, float_value, bool_value, rowid AS number FROM embedding_metadata_array;

-- no_meta_lists --
CREATE TEMP VIEW meta_lists AS
SELECT 0 AS id, '' AS key, '' AS string_value, 0 AS int_value, 0 AS float_value, 0 AS bool_value, 0 AS number WHERE 0;

-- count_rows --
SELECT COUNT(*) FROM embeddings WHERE segment_id = :segment

-- sample --
SELECT e.id, e.embedding_id, v.key
  FROM (SELECT id, embedding_id FROM embeddings WHERE segment_id = :segment LIMIT 20) AS e
  LEFT JOIN meta_values AS v ON v.id = e.id

-- any_vector --
SELECT vector FROM embeddings_queue
 WHERE topic IN (SELECT topic FROM topics WHERE part = :part) AND vector IS NOT NULL AND encoding = 'FLOAT32'
 LIMIT 1

-- find_replayed --
-- Entries that are not applied yet; entries that make a record which is not there, because the call failed half-way up to
-- 0.6; and, as `unstorable` tells, entries with values that SQLite did not take.
INSERT OR IGNORE INTO replayed (part, id)
SELECT t.part, q.id
  FROM embeddings_queue AS q
 CROSS JOIN topics AS t ON t.topic = q.topic
 WHERE q.seq_id > t.applied
    OR (q.operation IN (0, 2)
        AND NOT EXISTS (SELECT 1 FROM embeddings AS e WHERE e.segment_id = t.segment AND e.embedding_id = q.id))
    OR ((instr(q.metadata, 'NaN') OR instr(q.metadata, 'Infinity') OR instr(q.metadata, '\ud')
         OR q.metadata GLOB '*[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]*')
        AND unstorable(q.metadata))

-- histories --
SELECT t.part, r.id, q.seq_id, q.operation, e.id, e.seq_id, t.applied
  FROM embeddings_queue AS q
 CROSS JOIN topics AS t ON t.topic = q.topic
 CROSS JOIN replayed AS r ON r.part = t.part AND r.id = q.id
  LEFT JOIN embeddings AS e ON e.segment_id = t.segment AND e.embedding_id = q.id
 ORDER BY t.part, r.id, q.seq_id

-- log_metadata --
SELECT metadata FROM embeddings_queue WHERE seq_id = :seq

-- log_vectors --
SELECT seq_id, vector, encoding FROM embeddings_queue WHERE seq_id IN (SELECT value FROM json_each(:seqs))

-- count_changes --
SELECT (SELECT COUNT(*) FROM added WHERE part = :part), (SELECT COUNT(*) FROM altered WHERE part = :part AND gone)

-- forget_indexed --
DELETE FROM indexed

-- forget_logged --
DELETE FROM logged

-- forget_lost --
DELETE FROM lost

-- unsynced_vectors --
SELECT CAST(q.id AS BLOB), q.seq_id, q.operation, q.vector IS NOT NULL, x.id IS NOT NULL
  FROM embeddings_queue AS q
  LEFT JOIN indexed AS x ON x.id = CAST(q.id AS BLOB)
 WHERE q.topic IN (SELECT topic FROM topics WHERE part = :part) AND q.seq_id > :synced
 ORDER BY q.id, q.seq_id

-- place --
INSERT INTO placed
SELECT :part, e.id, CASE WHEN l.id IS NULL THEN x.element END, l.seq, a.row IS NOT NULL, 0
  FROM embeddings AS e
  LEFT JOIN indexed AS x ON x.id = CAST(e.embedding_id AS BLOB)
  LEFT JOIN logged AS l ON l.id = CAST(e.embedding_id AS BLOB)
  LEFT JOIN altered AS a ON a.row = e.id
 WHERE e.segment_id = :segment AND a.gone IS NOT 1
 ORDER BY e.id

-- place_added --
UPDATE added
   SET element = (SELECT x.element FROM indexed AS x WHERE x.id = CAST(added.id AS BLOB)
                     AND NOT EXISTS (SELECT 1 FROM logged AS l WHERE l.id = CAST(added.id AS BLOB))),
       vector = (SELECT l.seq FROM logged AS l WHERE l.id = CAST(added.id AS BLOB))
 WHERE part = :part

-- find_lost --
-- Those of `added` have their number with a minus.
INSERT INTO lost
SELECT CAST(e.embedding_id AS BLOB), p.row
  FROM placed AS p
 CROSS JOIN embeddings AS e ON e.id = p.row
 WHERE p.part = :part AND p.seq IS NULL AND (p.element IS NULL OR p.element < 0)
 UNION ALL
SELECT CAST(id AS BLOB), -seq FROM added
 WHERE part = :part AND vector IS NULL AND (element IS NULL OR element < 0)

-- lost_histories --
SELECT l.row, q.seq_id, q.operation, q.vector IS NOT NULL
  FROM embeddings_queue AS q
 CROSS JOIN lost AS l ON l.id = CAST(q.id AS BLOB)
 WHERE q.topic IN (SELECT topic FROM topics WHERE part = :part)
 ORDER BY l.row, q.seq_id

-- recover_row --
UPDATE placed SET seq = :seq, element = NULL, recovered = 1
 WHERE part = :part AND row = :row

-- recover_added --
UPDATE added SET vector = :seq, element = NULL WHERE seq = -:row

-- heads --
SELECT p.row, e.embedding_id, p.element, p.seq, p.altered, p.recovered
  FROM placed AS p
 CROSS JOIN embeddings AS e ON e.id = p.row
 WHERE p.part = :part AND p.row > :after
 ORDER BY p.row

-- values --
SELECT p.row, v.key, v.string_value, v.int_value, v.float_value, v.bool_value
  FROM placed AS p
 CROSS JOIN meta_values AS v ON v.id = p.row
 WHERE p.part = :part AND p.row > :after
 ORDER BY p.row

-- lists --
SELECT p.row, v.key, v.string_value, v.int_value, v.float_value, v.bool_value
  FROM placed AS p
 CROSS JOIN meta_lists AS v ON v.id = p.row
 WHERE p.part = :part AND p.row > :after
 ORDER BY p.row, v.number

-- patch --
SELECT patch FROM altered WHERE row = :row

-- additions --
SELECT seq, id, element, vector, patch FROM added WHERE part = :part AND seq > :after ORDER BY seq
