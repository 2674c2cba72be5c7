#!/usr/bin/env bash
# The table of search/workers/README.md, on three storages: pg_virtualenv -- tests/load.sh [options of search.load]
set -eu
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT
database=postgresql+psycopg://
python -m search.load --storage "sqlite:///$folder/load.db" --run 16 "$@"
python -m search.load --storage $database --run 16 "$@"
python -m search.proxy --storage $database &
python -m search.load --storage grpc://127.0.0.1:13000 --run 16 "$@"
