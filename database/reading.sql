-- primary_position --
-- How far the write-ahead log is written, as a number: whoever has replayed this much has all that was committed before. With
-- asynchronous commits, some of it is not flushed yet. Else it is flushed: what lies beyond commits nothing, and may stay there
-- while nothing is written, so that no standby ever comes to it. NULL on a standby.
SELECT (CASE WHEN pg_is_in_recovery() THEN NULL
             WHEN current_setting('synchronous_commit') = 'off' THEN pg_current_wal_insert_lsn()
             ELSE pg_current_wal_flush_lsn() END - '0/0')::bigint AS position,
       (SELECT system_identifier FROM pg_control_system()) AS cluster

-- standby_position --
-- How far a standby has replayed it; a server that is no standby (any more) has everything.
SELECT pg_is_in_recovery() AS in_recovery, (pg_last_wal_replay_lsn() - '0/0')::bigint AS position

-- cluster --
-- What a standby has in common with its primary, and with no other server.
SELECT system_identifier AS cluster FROM pg_control_system()
