#!/bin/sh
# What runs between the database's start and the application's: the schema is brought to this version, then all is examined.
set -eu
cd "$(dirname "$0")/.."
echo "1. Schema"
python synapse.py database upgrade
echo "2. Extension, schema, roles, indexes, settings"
python synapse.py doctor
