-- standbys --
-- The standbys as the primary sees them; without the rights of pg_monitor, only that they are there.
SELECT coalesce(nullif(application_name, ''), 'standby') AS name, state,
       (pg_current_wal_lsn() - replay_lsn)::bigint AS bytes,
       CASE WHEN state IS NULL THEN NULL
            WHEN replay_lsn >= pg_current_wal_flush_lsn() THEN 0
            ELSE extract(epoch FROM replay_lag)::float8 END AS seconds
  FROM pg_stat_replication
 ORDER BY name, pid

-- position --
-- As far as the primary's commits are flushed, and how that reads on a standby: replayed, and received.
SELECT pg_is_in_recovery() AS in_recovery,
       (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END - '0/0')::bigint AS position,
       (pg_last_wal_receive_lsn() - '0/0')::bigint AS received,
       CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END AS paused,
       EXISTS (SELECT FROM pg_stat_wal_receiver WHERE pid IS NOT NULL) AS receiving,
       extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8 AS since_newest_commit
