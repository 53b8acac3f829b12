#!/bin/sh
# Backups until it is stopped: one at the start, then every BACKUP_EVERY seconds, of which BACKUP_KEEP are kept.
# `backup.sh check` is its health check: whether the newest is no older than two intervals.
set -eu
cd "$(dirname "$0")/.."
folder=${BACKUP_FOLDER:-/backups}
every=${BACKUP_EVERY:-86400}
done_file=$folder/.last_success
child=

if [ "${1:-}" = check ]; then
    [ -n "$(find "$done_file" -mmin "-$((every / 30 + 1))" 2>/dev/null)" ] && exit 0
    echo "A backup of the last $((every * 2)) seconds was expected in $folder, but there is none."
    exit 1
fi

# A shell waits for its foreground child before it takes a signal; for a background one it does not.
trap 'kill "$child" 2>/dev/null; wait "$child" || :; exit 0' TERM INT
while :; do
    python synapse.py database backup "$folder" --keep "${BACKUP_KEEP:-7}" &
    child=$!
    if wait "$child"; then
        touch "$done_file"
    else
        echo "The backup failed; the next attempt is in $every seconds." >&2
    fi
    sleep "$every" &
    child=$!
    wait "$child"
done
