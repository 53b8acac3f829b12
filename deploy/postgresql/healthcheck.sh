#!/bin/sh
# Whether the database can do its work: it takes passwords over TCP, knows vectors, and has our schema at some version.
# Not over the socket: there the server of the first start listens already, while init.sql still runs. Any version will do,
# as the upgrade to the program's own waits for this.
#   healthcheck.sh [USER [PORT]]
set -eu
export PGHOST=127.0.0.1 PGUSER="${1:-${POSTGRES_USER:-postgres}}" PGPORT="${2:-5432}" PGCONNECT_TIMEOUT=3
export PGDATABASE="${POSTGRES_DB:-synapse}"
if [ "$PGUSER" = synapse_app ]; then
    PGPASSWORD=${SYNAPSE_APP_PASSWORD:-$(cat "${SYNAPSE_APP_PASSWORD_FILE:-/dev/null}")}
else
    PGPASSWORD=${POSTGRES_PASSWORD:-$(cat "${POSTGRES_PASSWORD_FILE:-/dev/null}")}
fi
export PGPASSWORD
psql -v ON_ERROR_STOP=1 --no-psqlrc --quiet --tuples-only --no-align <<'SQL'
SELECT 1 / (abs(('[1,0]'::vector <=> '[0,2]'::vector) - 1) < 1e-6)::int AS right_angle \gset
SELECT format('vector %s, schema %s', extversion, version_num)
  FROM pg_extension, alembic_version
 WHERE extname = 'vector';
SQL
