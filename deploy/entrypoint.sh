#!/bin/sh
# The image's door: `docker run synapse COMMAND` is `python synapse.py COMMAND`.
set -eu
case " $* " in
    "  " | *" --help "*) ;;
    *)
        if [ -z "${DATABASE_URL:-}${DATABASE_URL_FILE:-}" ]; then
            echo "DATABASE_URL or DATABASE_URL_FILE was expected, but neither is set: this image has no database of its own." \
                "docs/deploying.md tells how to run one beside it." >&2
            exit 1
        fi
        ;;
esac
exec python synapse.py "$@"
