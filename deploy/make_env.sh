#!/bin/sh
# Writes .env for docker-compose.yml: .env.example with two new passwords and the URLs that use them.
#   [POSTGRES_PORT=5433] sh deploy/make_env.sh
set -eu
cd "$(dirname "$0")/.."
if [ -e .env ]; then
    echo "No .env was expected, but there is one; it is left as it is." >&2
    exit 1
fi
password() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
umask 077
sed -e "s|^#\(POSTGRES_PASSWORD\)=.*|\1=$(password)|" \
    -e "s|^#\(SYNAPSE_APP_PASSWORD\)=.*|\1=$(password)|" \
    -e "s|^#\(POSTGRES_PORT\)=.*|\1=${POSTGRES_PORT:-5432}|" \
    -e "s|^#\(DATABASE_URL\)=|\1=|" \
    -e "s|^#\(DATABASE_OWNER_URL\)=|\1=|" .env.example >.env
echo "Wrote .env with two new passwords; only you can read it."
