#!/bin/sh
# Starts PostgreSQL's image, once both passwords are there: a first start that fails half-way is not done again.
set -eu
for name in POSTGRES_PASSWORD SYNAPSE_APP_PASSWORD; do
    eval "value=\${$name:-} file=\${${name}_FILE:-}"
    # shellcheck disable=SC2154 # eval sets them
    if [ -n "$file" ] && [ ! -s "$file" ]; then
        echo "${name}_FILE was expected to name a file with a password, but $file is missing, empty or not readable." >&2
        exit 1
    elif [ -z "$value$file" ]; then
        echo "$name was expected, but is not set. \`sh deploy/make_env.sh\` makes a .env with it." >&2
        exit 1
    fi
done
exec docker-entrypoint.sh "$@"
