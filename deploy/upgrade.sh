#!/bin/sh
# What runs between the database's start and the application's: the schema is brought to this version, then all is examined.
# What the examination finds is said and stops nothing: a service that could work does not stay away for a warning. Without
# the extension or the schema it could not; there the first step fails.
set -eu
cd "$(dirname "$0")/.."
echo "1. Schema"
python synapse.py database upgrade
echo "2. Extension, schema, roles, indexes, settings"
code=0
python synapse.py doctor || code=$?
if [ "$code" = 5 ]; then
    echo "The service starts all the same; what is above wants to be mended."
    exit 0
fi
exit "$code"
