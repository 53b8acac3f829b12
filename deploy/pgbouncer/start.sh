#!/bin/sh
# Starts PgBouncer with the application's password, from SYNAPSE_APP_PASSWORD or the file that SYNAPSE_APP_PASSWORD_FILE names.
set -eu
password=${SYNAPSE_APP_PASSWORD:-$(cat "${SYNAPSE_APP_PASSWORD_FILE:-/dev/null}")}
if [ -z "$password" ]; then
    echo "SYNAPSE_APP_PASSWORD or SYNAPSE_APP_PASSWORD_FILE was expected, but there is no password." >&2
    exit 1
fi
umask 077
# In this file a quotation mark is written twice.
printf '"synapse_app" "%s"\n' "$(printf '%s' "$password" | sed 's/"/""/g')" >"${USERS_FILE:-/tmp/users.txt}"
exec pgbouncer "${1:-/etc/pgbouncer/pgbouncer.ini}"
