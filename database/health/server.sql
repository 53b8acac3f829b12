-- version --
SELECT current_setting('server_version_num')::integer AS number

-- collation --
-- The version of the sorting rules when the database was made, and now; NULL where there is none, as with the C locale.
SELECT datname AS name, datcollversion AS recorded, pg_database_collation_actual_version(oid) AS actual,
       coalesce(datcollversion <> pg_database_collation_actual_version(oid), false) AS changed
  FROM pg_database
 WHERE datname = current_database()
