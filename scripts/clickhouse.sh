#!/usr/bin/env bash
# Puts ClickHouse into the cache for the tests of SQL. Debian's is too old; the npm package
# `@chdb/lib-linux-x64-gnu` (Apache-2.0) carries the whole program as a library, which a launcher of a
# few lines starts. Nothing of the package is run by npm.
set -euo pipefail
version=26.7.3-stable.1
sha256=c0d32b129e988f2b9a9a31c9141aecf5e1e2453f9a079efc4d36ab8e3f92b2ad
cd "$(dirname "$0")"
tools=${XDG_CACHE_HOME:-$HOME/.cache}/mutt-security-manager/tools
# The last number: of the launcher, counted up when it changes.
installed=clickhouse-$version-1
if [ "$(readlink "$tools/clickhouse")" = "$installed" ] && [ -x "$tools/$installed/clickhouse" ]; then
  exit 0
fi
if [ "$(uname -m)" != x86_64 ]; then
  echo "There is no ClickHouse for $(uname -m) in this package; the tests of its SQL need x86_64." >&2
  exit 1
fi
. ./need.sh
need npm "fetching ClickHouse for the tests of SQL" npm
need cc "its launcher" gcc libc6-dev

mkdir -p "$tools"
work=$(mktemp -d "$tools/.clickhouse.XXXXXX")
trap 'rm -rf "$work"' EXIT
echo "Fetching ClickHouse $version (178 MB) into $tools ..."
(cd "$work" && npm pack --silent "@chdb/lib-linux-x64-gnu@$version" >/dev/null)
echo "$sha256  $(ls "$work"/*.tgz)" | sha256sum --check --quiet
tar xzf "$work"/*.tgz -C "$work" --strip-components 1 --no-same-owner package/libchdb.so
rm "$work"/*.tgz
cc -O2 -o "$work/clickhouse" clickhouse-launcher.c -ldl
chmod 0755 "$work" "$work"/*
# Renamed at the end, so that an interrupted run leaves nothing half done where the tests look.
rm -rf "${tools:?}/$installed"
mv "$work" "$tools/$installed"
ln -sfn "$installed" "$tools/clickhouse"
