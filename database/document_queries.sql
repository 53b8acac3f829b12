-- nearest_documents --
-- Nearest first, through the HNSW index where it pays. Its scan may return slightly out of order (relaxed) and stops after
-- hnsw.max_scan_tuples: what it found is sorted again, and when it found fewer than wanted, the answer is exact instead.
WITH near AS MATERIALIZED (
    SELECT {columns}, embedding {operator} %(embedding)b::{vector_type} AS distance
      FROM {table}
     WHERE embedding IS NOT NULL AND {condition}
     ORDER BY embedding {operator} %(embedding)b::{vector_type}
     LIMIT %(top_k)s
), found AS (
    SELECT count(*) AS documents FROM near WHERE distance <> 'NaN'
), nearest AS (
    SELECT near.* FROM near, found WHERE documents >= %(top_k)s
     UNION ALL
    SELECT rest.*
      FROM found, LATERAL (
          SELECT {columns}, embedding {operator} %(embedding)b::{vector_type} AS distance
            FROM {table}
           WHERE documents < %(top_k)s AND embedding IS NOT NULL AND {condition}
             AND (embedding {operator} %(embedding)b::{vector_type}) <> 'NaN'
           ORDER BY (embedding {operator} %(embedding)b::{vector_type}) + 0
           LIMIT %(top_k)s
      ) AS rest
)
SELECT nearest.*, {score} AS score
  FROM nearest
 ORDER BY distance + 0, id
 LIMIT %(top_k)s

-- nearest_documents_exactly --
-- Nearest first, every document compared: the sum keeps the index out.
SELECT {columns}, {score} AS score
  FROM (SELECT *, embedding {operator} %(embedding)b::{vector_type} AS distance FROM {table} WHERE {condition}) AS compared
 WHERE distance <> 'NaN'
 ORDER BY distance + 0, id
 LIMIT %(top_k)s

-- words --
-- The part of a WITH that finds documents by the words of a question, none of which is required: `worded`, the best of them
-- by the sum of their words' weights, and `weights`, each word's rarity (BM25's idf). All of it comes out of the index. Long
-- words tend to be rare: of very many, the longest are looked for. A word that very many documents have proposes only the
-- first of them; how many there are is then estimated from how far into the table these reach.
terms AS MATERIALIZED (
    SELECT lexeme, ('''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || '''')::tsquery AS query
      FROM unnest(to_tsvector({language}, %(question)s))
     ORDER BY length(lexeme) DESC, lexeme
     LIMIT %(max_terms)s
), allowance AS MATERIALIZED (
    SELECT greatest(%(max_matches)s / greatest(count(*), 1), 500) AS rows FROM terms
), matches AS MATERIALIZED (
    SELECT terms.lexeme, found.id, found.passes, found.place
      FROM terms, LATERAL (
          SELECT id, ({condition}) IS TRUE AS passes, ctid AS place
            FROM {table}
           WHERE to_tsvector({language}, content) @@ terms.query
           LIMIT (SELECT rows FROM allowance)
      ) AS found
), total AS MATERIALIZED (
    SELECT CASE WHEN reltuples > 0 THEN reltuples ELSE (SELECT count(*) FROM {table}) END AS documents,
           pg_relation_size(oid) / current_setting('block_size')::int AS pages
      FROM pg_class
     WHERE oid = {table_name}::regclass
), found_of_word AS (
    SELECT lexeme, count(*) AS found, (max(place)::text::point)[0] + 1 AS pages_read FROM matches GROUP BY lexeme
), frequencies AS (
    SELECT lexeme, documents,
           CASE WHEN found < rows THEN found ELSE least(found * pages / pages_read, documents) END AS frequency
      FROM found_of_word, total, allowance
), weights AS MATERIALIZED (
    SELECT lexeme, ln(1 + (greatest(documents - frequency, 0) + 0.5) / (frequency + 0.5)) AS weight FROM frequencies
), worded AS MATERIALIZED (
    SELECT id FROM matches JOIN weights USING (lexeme) WHERE passes
     GROUP BY id ORDER BY sum(weight) DESC, id LIMIT %(candidates)s
)

-- keyword_score --
-- BM25 with k1 = 1.2 and b = 0.75 (Robertson & Zaragoza, 2009); lengths are in characters. Parsing a text costs 0.1 to 0.3 ms,
-- which is why only candidates are scored so.
SELECT coalesce(sum(weight * frequency * 2.2 / (frequency + 1.2 * (0.25 + 0.75 * relative_length))), 0)::float8
  FROM (SELECT lexeme, cardinality(positions) AS frequency FROM unnest(to_tsvector({language}, content))) AS words
  JOIN weights USING (lexeme)

-- keyword_documents --
-- Best first by the words that they share with the question.
WITH {words}, texts AS MATERIALIZED (
    SELECT {columns}, length(content) / nullif(avg(length(content)) OVER (), 0) AS relative_length
      FROM {table} JOIN worded USING (id)
)
SELECT {columns}, score
  FROM texts, LATERAL ({keyword_score}) AS keywords (score)
 ORDER BY score DESC, id
 LIMIT %(top_k)s

-- hybrid_documents --
-- Both legs propose candidates; each candidate, whichever leg found it, is then scored by both. A score is divided by the best
-- of its kind before the two are averaged: their shape survives, which ranks alone would throw away (Bruch et al., 2023).
WITH near AS MATERIALIZED (
    SELECT id, embedding {operator} %(embedding)b::{vector_type} AS distance
      FROM {table}
     WHERE embedding IS NOT NULL AND {condition}
     ORDER BY embedding {operator} %(embedding)b::{vector_type}
     LIMIT %(candidates)s
), found AS (
    SELECT count(*) AS documents FROM near WHERE distance <> 'NaN'
), nearest AS (
    SELECT id FROM near, found WHERE documents >= %(top_k)s
     UNION ALL
    SELECT rest.id
      FROM found, LATERAL (
          SELECT id FROM {table}
           WHERE documents < %(top_k)s AND embedding IS NOT NULL AND {condition}
             AND (embedding {operator} %(embedding)b::{vector_type}) <> 'NaN'
           ORDER BY (embedding {operator} %(embedding)b::{vector_type}) + 0
           LIMIT %(candidates)s
      ) AS rest
), {words}, pool AS (
    SELECT id FROM nearest UNION SELECT id FROM worded
), texts AS MATERIALIZED (
    SELECT {columns},
           nullif(embedding {operator} %(embedding)b::{vector_type}, 'NaN') AS distance,
           length(content) / nullif(avg(length(content)) OVER (), 0) AS relative_length
      FROM {table} JOIN pool USING (id)
), scored AS (
    SELECT {columns}, {score} AS similarity, keyword_score
      FROM texts, LATERAL ({keyword_score}) AS keywords (keyword_score)
)
SELECT {columns}, similarity, keyword_score,
       (coalesce(greatest(similarity, 0) / nullif(max(greatest(similarity, 0)) OVER (), 0), 0)
        + coalesce(keyword_score / nullif(max(keyword_score) OVER (), 0), 0)) / 2 AS score
  FROM scored
 ORDER BY score DESC, similarity DESC NULLS LAST, id
 LIMIT %(top_k)s

-- all_documents --
SELECT {columns} FROM {table} WHERE {condition}

-- count_documents --
SELECT count(*) AS documents FROM {table} WHERE {condition}

-- delete_documents --
DELETE FROM {table} WHERE id = ANY(%(ids)s::text[])

-- delete_documents_by_filter --
DELETE FROM {table} WHERE {condition}

-- delete_all_documents --
TRUNCATE {table}

-- update_documents_by_filter --
UPDATE {table} SET meta = coalesce(meta, '{{}}') || %(meta)s::jsonb WHERE {condition}

-- drop_table --
DROP TABLE IF EXISTS {table}
