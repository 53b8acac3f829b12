-- usage_by_day --
-- One row per day (UTC) with questions or marks, oldest first; the last of them is today.
WITH period AS (
    SELECT date_trunc('day', now(), 'UTC') - make_interval(hours => 24 * (%(days)s::int - 1)) AS since
), questions AS (
    SELECT (at AT TIME ZONE 'UTC')::date AS day,
           count(*) AS questions,
           sum(tokens_in)::bigint AS tokens_in,
           sum(tokens_out)::bigint AS tokens_out,
           bool_or(tokens_estimated) AS tokens_estimated,
           count(*) FILTER (WHERE NOT supported) AS empty_answers,
           count(*) FILTER (WHERE interrupted) AS interrupted
      FROM usage_logs
     WHERE at >= (SELECT since FROM period)
     GROUP BY 1
), marks AS (
    SELECT (given_at AT TIME ZONE 'UTC')::date AS day,
           count(*) FILTER (WHERE mark = 1) AS good_marks,
           count(*) FILTER (WHERE mark = -1) AS bad_marks
      FROM feedback
     WHERE given_at >= (SELECT since FROM period)
     GROUP BY 1
)
SELECT day,
       coalesce(questions, 0) AS questions,
       coalesce(tokens_in, 0) AS tokens_in,
       coalesce(tokens_out, 0) AS tokens_out,
       coalesce(tokens_estimated, false) AS tokens_estimated,
       coalesce(empty_answers, 0) AS empty_answers,
       coalesce(interrupted, 0) AS interrupted,
       coalesce(good_marks, 0) AS good_marks,
       coalesce(bad_marks, 0) AS bad_marks
  FROM questions
  FULL JOIN marks USING (day)
 ORDER BY day
