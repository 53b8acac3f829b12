-- near_by_index --
-- The part of a WITH that finds the nearest documents through an index: `nearest`. The filter is looked at along the index's
-- own order, which makes the answer right whenever enough documents pass there, however the filter and the question relate.
-- When too few do, the caller asks again, exactly. A partial index is used because its condition stands here as it stands in
-- the index; one in half precision orders nearly right, and what it reaches is ordered again.
nearest AS MATERIALIZED (
    SELECT {near}, distance
      FROM (SELECT {near}, embedding {operator} %(embedding)b::{vector_type} AS distance, {condition} AS passes
              FROM {table} AS along_the_index {within}
             ORDER BY {along}
             LIMIT %(reach)s) AS reached
     WHERE passes AND distance <> 'NaN' {again}
     LIMIT %(near)s
)

-- near_exactly --
-- The same, every document that passes compared: the sum keeps the HNSW index out. NaN, of zeros, is greater than any number.
nearest AS MATERIALIZED (
    SELECT {near}, distance
      FROM (SELECT {near}, embedding {operator} %(embedding)b::{vector_type} AS distance
              FROM {table} AS one_by_one
             WHERE embedding IS NOT NULL AND {condition}
             ORDER BY (embedding {operator} %(embedding)b::{vector_type}) + 0
             LIMIT %(near)s) AS compared
     WHERE distance <> 'NaN'
)

-- cost_of_exactness --
-- What the planner thinks that comparing every document that passes would cost.
EXPLAIN (FORMAT JSON)
SELECT id FROM {table}
 WHERE embedding IS NOT NULL AND {condition}
 ORDER BY (embedding {operator} %(embedding)b::{vector_type}) + 0
 LIMIT %(near)s

-- nearest_documents --
WITH {nearest}
SELECT nearest.*, {score} AS score
  FROM nearest
 ORDER BY distance + 0, id
 LIMIT %(top_k)s

-- worded --
-- The part of a WITH that finds documents by the words of a question, none of which is required: `worded`, the best by BM25, and
-- `asked`, the question's terms with their rarity. Exact, though most matches of common words are never looked at: the documents
-- with the rarest words are weighed first, and a word whose weight, together with all more common ones, cannot lift a document
-- to the level reached is left out (MaxScore: Turtle & Flood, 1995).
totals AS MATERIALIZED (
    SELECT language, sum(documents) AS documents, sum(length) / sum(documents) AS average
      FROM {terms}
     WHERE term = 0
     GROUP BY language
    HAVING sum(documents) > 0
), known AS (
    SELECT totals.language, totals.average, totals.documents, words.term, words.frequency AS asked,
           sum(counts.documents) AS having_it
      FROM totals
      CROSS JOIN LATERAL (SELECT unnest(found[:cardinality(found) / 2]) AS term,
                                 unnest(found[cardinality(found) / 2 + 1:]) AS frequency
                            FROM (SELECT synapse_terms(totals.language, %(question)s) AS found OFFSET 0) AS parsed) AS words
      JOIN {terms} AS counts ON counts.term = words.term
     GROUP BY totals.language, totals.average, totals.documents, words.term, words.frequency
), asked AS MATERIALIZED (
    SELECT term, language, average, having_it, rarity,
           sum(having_it) OVER rarest AS reached,
           2.2 * sum(rarity) OVER (ORDER BY rarity, term DESC) AS at_most,
           ('{{' || term || ':1}}/1000000000')::sparsevec AS unit
      FROM (SELECT *, asked * ln(1 + (greatest(documents - having_it, 0) + 0.5) / (having_it + 0.5))::float8 AS rarity
              FROM known
             ORDER BY rarity DESC, term
             LIMIT %(max_terms)s) AS rare
    WINDOW rarest AS (ORDER BY rarity DESC, term)
), question AS MATERIALIZED (
    SELECT ('{{' || string_agg(term || ':' || rarity::real, ',' ORDER BY term) || '}}/1000000000')::sparsevec AS weights,
           array_agg(term) FILTER (WHERE reached <= {first_matches} OR reached = having_it) AS rarest
      FROM asked
), weighed AS MATERIALIZED (
    SELECT document_id AS id, -(weights <#> (SELECT weights FROM question)) AS weight
      FROM {keywords} AS with_the_rarest {passing}
     WHERE terms && (SELECT rarest FROM question)
), level AS (
    SELECT coalesce((SELECT weight FROM weighed ORDER BY weight DESC OFFSET %(worded)s - 1 LIMIT 1), 0) AS reached
), others AS MATERIALIZED (
    SELECT array_agg(term) AS terms
      FROM asked, question, level
     WHERE NOT term = ANY (rarest) AND at_most > level.reached
), worded AS MATERIALIZED (
    SELECT id, weight FROM weighed
     UNION ALL
    SELECT document_id, -(weights <#> (SELECT weights FROM question))
      FROM {keywords} AS with_others {passing}
     WHERE terms && (SELECT terms FROM others) AND NOT terms && (SELECT rarest FROM question)
     ORDER BY weight DESC, id
     LIMIT %(worded)s
)

-- passing --
-- Of the documents with a word, those that pass the filter.
JOIN (SELECT id FROM {table} WHERE {condition}) AS passing ON passing.id = document_id

-- keyword_score --
-- BM25 of a row of the keywords table. How often a term stands in the document is computed back from its stored weight.
SELECT coalesce(sum(rarity * (%(k1)s + 1) * times / (times + %(k1)s * (1 - %(b)s + %(b)s * length / average))), 0)::float8
  FROM (SELECT rarity, average, round(weight * (0.3 + 0.9 * length / pivot) / (2.2 - weight)) AS times
          FROM (SELECT rarity, average, -(weights <#> unit) AS weight FROM asked
                 WHERE asked.language = kept.language) AS stored
         WHERE weight > 0) AS frequencies

-- keyword_documents --
-- Best first by the words that they share with the question.
WITH {worded}
SELECT {columns}, score
  FROM (SELECT document_id AS id, score
          FROM {keywords} AS kept JOIN worded ON id = document_id, LATERAL ({keyword_score}) AS found (score)) AS best
  JOIN {table} USING (id)
 ORDER BY score DESC, id
 LIMIT %(top_k)s

-- hybrid_documents --
-- Both legs propose candidates; each candidate, whichever leg found it, is then scored by both. A score is divided by the best
-- of its kind before the two are averaged: their shape survives, which ranks alone would throw away (Bruch et al., 2023).
WITH {nearest}, {worded}, candidates AS (
    SELECT id FROM nearest UNION SELECT id FROM worded
), scored AS MATERIALIZED (
    SELECT {columns}, {score} AS similarity, coalesce(keyword_score, 0) AS keyword_score
      FROM (SELECT {columns}, nullif(embedding {operator} %(embedding)b::{vector_type}, 'NaN') AS distance
              FROM {table} JOIN candidates USING (id)) AS texts
      LEFT JOIN {keywords} AS kept ON document_id = id
      LEFT JOIN LATERAL ({keyword_score}) AS found (keyword_score) ON true
)
SELECT {columns}, similarity, keyword_score, (SELECT count(*) FROM nearest) AS near,
       (1 - %(keyword_weight)s) * coalesce(greatest(similarity, 0) / nullif(max(greatest(similarity, 0)) OVER (), 0), 0)
       + %(keyword_weight)s * coalesce(keyword_score / nullif(max(keyword_score) OVER (), 0), 0) AS score
  FROM scored
 ORDER BY score DESC, similarity DESC NULLS LAST, id
 LIMIT %(top_k)s
