#!/usr/bin/env bash
# Installs the real servers that the tests start for themselves. None is left running by this.
set -euo pipefail
cd "$(dirname "$0")"
. ./need.sh
need redis-server "the tests of the Redis drivers" redis-server
[ -x "$(ls -d /usr/lib/postgresql/*/bin/initdb 2>/dev/null | tail -1)" ] ||
  need initdb "the tests of the PostgreSQL driver" postgresql
bash ./openbao.sh
bash ./clickhouse.sh
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
need aiosmtpd "the test of e-mail with a mail server that others wrote" python3-aiosmtpd
need snmptrap "the tests of the SNMP listener" snmp
need snmptrapd "the tests of the snmptrapd route" snmptrapd
need rsyslogd "the tests of the rsyslog samples" rsyslog
[ -e "$(ls /usr/lib/*/rsyslog/lmnsd_ossl.so 2>/dev/null | tail -1)" ] ||
  need rsyslog-openssl "the tests of the rsyslog samples with TLS" rsyslog-openssl
need curl "the tests of the snmptrapd and rsyslog routes" curl
need openssl "the tests of the installer of agents" openssl
need ip "the tests that put agents into networks of their own" iproute2
