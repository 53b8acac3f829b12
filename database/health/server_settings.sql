-- connections --
-- What the server, the database and the role allow, without what is kept for superusers; and how many clients there are.
SELECT current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
           - coalesce(current_setting('reserved_connections', true), '0')::integer AS server,
       CASE WHEN d.datconnlimit < 0 THEN 2147483647 ELSE d.datconnlimit END AS database,
       CASE WHEN r.rolconnlimit < 0 OR r.rolsuper THEN 2147483647 ELSE r.rolconnlimit END AS role,
       (SELECT sum(numbackends)::integer FROM pg_stat_database) AS used,
       d.datname AS name, r.rolname AS me
  FROM pg_database d, pg_roles r
 WHERE d.datname = current_database() AND r.rolname = session_user
