#!/usr/bin/env bash
# The table of search/workers/README.md, on three storages: pg_virtualenv -- tests/load.sh [options of search.load]
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT
measure() {
    python -m search.load --run 16 --storage "$@" | tee -a "$folder/printed"
}
measure "sqlite:///$folder/load.db" "$@"
for name in direct served; do
    createdb "load_$name"
done
measure postgresql+psycopg:///load_direct "$@"
python -m search.proxy --storage postgresql+psycopg:///load_served &
measure grpc://127.0.0.1:13000 "$@"
echo
grep "^|" "$folder/printed" | awk '!seen[$0]++' # the three tables as one
