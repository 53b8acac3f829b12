#!/bin/sh
# Writes the secrets of deploy/compose.production.yml into a folder, one a file; those that are there already stay.
#   [DATABASE_HOST=pgbouncer] sh deploy/make_secrets.sh [FOLDER]
# Compose shows a container its secrets with the mode that they have here, and each container has a user of its own:
# everybody may read the files, but nobody else may enter the folder.
set -eu
folder=${1:-secrets}
mkdir -p "$folder"
chmod 700 "$folder"
password() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
written() {
    if [ -e "$folder/$1" ]; then
        echo "$folder/$1 is kept."
    else
        printf '%s\n' "$2" >"$folder/$1"
        chmod 444 "$folder/$1"
        echo "$folder/$1 is new."
    fi
}
written postgres_password "$(password)"
written synapse_app_password "$(password)"
written database_url \
    "postgresql://synapse_app:$(cat "$folder/synapse_app_password")@${DATABASE_HOST:-database}:5432/synapse"
written database_owner_url "postgresql://postgres:$(cat "$folder/postgres_password")@database:5432/synapse"
written serve_page_secret "$(password)$(password)"
written grafana_password "$(password)"
# Docker wants every file to be there; LLM_KEY_FILE and its like in .env say whether these are used.
written openai_api_key "${OPENAI_API_KEY:-}"
written embedding_api_key "${EMBEDDING_API_KEY:-}"
written database_read_url "${DATABASE_READ_URL:-}"
