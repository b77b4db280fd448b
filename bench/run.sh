#!/usr/bin/env bash
# Measures the released muttd against its peers in one run and writes bench/RESULTS.md.
#   bash bench/run.sh [--quick] [--only idle,http,ndjson,syslog,path,latency,company,gateway,agent]
# Needs a quiet machine; a whole run takes about twenty minutes. A quick or partial run writes to
# bench/out/part, so that it never replaces the numbers of a whole one.
# MUTTD=FILE measures that binary instead of building one.
set -euo pipefail
cd "$(dirname "$0")/.."

. scripts/need.sh
need rsyslogd "the peer of the syslog measurements; it is not started as a service" rsyslog
need redis-server "the measurements of the Redis/PostgreSQL profile" redis-server
[ -x "$(ls -d /usr/lib/postgresql/*/bin/initdb 2>/dev/null | tail -1)" ] ||
  need initdb "the measurements of the Redis/PostgreSQL profile" postgresql

cargo=${CARGO:-cargo}
$cargo build --release --locked --quiet -p bench
if [ -z "${MUTTD:-}" ]; then
  $cargo build --release --locked --quiet -p server --bin muttd
  $cargo build --release --locked --quiet -p agent --bin sm-agent
fi
target=${CARGO_TARGET_DIR:-target}

out=bench/out
results=bench/RESULTS.md
if [ $# != 0 ]; then
  out=bench/out/part
  results=$out/RESULTS.md
fi
mkdir -p "$out"
ulimit -n "$(ulimit -Hn)"
exec "$target/release/bench" run --muttd "${MUTTD:-$target/release/muttd}" --out "$out" --results "$results" "$@"
