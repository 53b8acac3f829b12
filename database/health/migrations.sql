-- unfinished --
SELECT id, source_kind, started_at,
       coalesce((SELECT sum(inserted) FROM migration_parts WHERE run = migration_runs.id), 0)::bigint AS inserted
  FROM migration_runs
 WHERE finished_at IS NULL AND started_at < now() - interval '1 hour'
 ORDER BY started_at, id
 LIMIT 5
