-- written --
SELECT CASE WHEN pg_is_in_recovery() THEN NULL ELSE (pg_current_wal_flush_lsn() - '0/0')::bigint END AS position,
       (SELECT system_identifier FROM pg_control_system()) AS cluster

-- state --
-- Bytes that are not replayed yet of what the primary had written, and how old the last that was is.
SELECT pg_is_in_recovery() AS standby, (SELECT system_identifier FROM pg_control_system()) AS cluster,
       CASE WHEN pg_is_in_recovery() THEN greatest(%(position)s - (pg_last_wal_replay_lsn() - '0/0')::bigint, 0) ELSE 0 END AS behind,
       extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8 AS seconds
