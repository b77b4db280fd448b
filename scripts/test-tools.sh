#!/usr/bin/env bash
# Installs the real servers that the tests start for themselves. None is left running by this.
set -euo pipefail
cd "$(dirname "$0")"
. ./need.sh
need redis-server "the tests of the Redis drivers" redis-server
[ -x "$(ls -d /usr/lib/postgresql/*/bin/initdb 2>/dev/null | tail -1)" ] ||
  need initdb "the tests of the PostgreSQL driver" postgresql
need prometheus "the tests of the service level objectives" prometheus
need chromium "the tests of the pages" chromium
# axe checks the pages for accessibility; a Python package carries its one file.
axe="${XDG_CACHE_HOME:-$HOME/.cache}/mutt-security-manager/axe.min.js"
if [ ! -s "$axe" ]; then
  need pip3 "fetching axe for the tests of the pages" python3-pip
  wheel=$(mktemp -d)
  pip3 download --quiet --no-deps --dest "$wheel" axe-core-python==0.1.0
  mkdir -p "$(dirname "$axe")"
  python3 -c 'import sys, zipfile; sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[1]).read("axe_core_python/axe.min.js"))' \
    "$wheel"/*.whl >"$axe.new"
  mv "$axe.new" "$axe"
  rm -rf "$wheel"
fi
