#!/usr/bin/env bash
# Installs the real servers that the tests start for themselves. None is left running by this.
set -euo pipefail
cd "$(dirname "$0")"
. ./need.sh
need redis-server "the tests of the Redis drivers" redis-server
[ -x "$(ls -d /usr/lib/postgresql/*/bin/initdb 2>/dev/null | tail -1)" ] ||
  need initdb "the tests of the PostgreSQL driver" postgresql
bash ./openbao.sh
had_prometheus=$(command -v prometheus || true)
need promtool "the tests of the alert rules and the dashboard, in a Prometheus of their own" prometheus
if [ -z "$had_prometheus" ] && [ -d /run/systemd/system ]; then
  # The package starts it; the tests need the program only.
  as_root=""
  [ "$(id -u)" = 0 ] || as_root="sudo"
  $as_root systemctl disable --now --quiet prometheus prometheus-node-exporter 2>/dev/null || true
fi
need shellcheck "the scripts of packaging/" shellcheck
need systemd-analyze "the tests of the units" systemd
