#!/bin/sh
# Lets the application log in with the password of .env, or of a file. PostgreSQL's image runs it once, after init.sql.
set -eu
if [ -n "${SYNAPSE_APP_PASSWORD_FILE:-}" ]; then
    SYNAPSE_APP_PASSWORD=$(cat "$SYNAPSE_APP_PASSWORD_FILE")
    export SYNAPSE_APP_PASSWORD
fi
: "${SYNAPSE_APP_PASSWORD:?is the password of the application role; set it in .env}"

# From the environment, not as an argument that `ps` shows; and not into the server's log, should the statement fail.
psql -v ON_ERROR_STOP=1 --no-psqlrc --quiet --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
\getenv password SYNAPSE_APP_PASSWORD
SET log_statement TO none;
SET log_min_error_statement TO panic;
ALTER ROLE synapse_app LOGIN PASSWORD :'password';
\pset tuples_only on
\pset format unaligned
SELECT format('init.sql made schema version %s with pgvector %s; synapse_app can log in.', version_num, extversion)
  FROM alembic_version, pg_extension
 WHERE extname = 'vector';
SQL
