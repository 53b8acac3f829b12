-- sources --
-- How many sources are indexed and how many kept out, with the first of those; one row at least.
WITH mine AS (
    SELECT s.source, s.reason FROM sources s JOIN embedding_models m ON m.name = s.model WHERE m.active
), counted AS (
    SELECT count(*) FILTER (WHERE reason IS NULL) AS indexed, count(*) FILTER (WHERE reason IS NOT NULL) AS kept_out FROM mine
)
SELECT counted.indexed, counted.kept_out, first.source, first.reason
  FROM counted
  LEFT JOIN (SELECT source, left(reason, 120) AS reason FROM mine WHERE reason IS NOT NULL ORDER BY source LIMIT %(most)s) AS first ON true
