#!/usr/bin/env bash
# Installs the real servers that the tests start for themselves. None is left running by this.
set -euo pipefail
cd "$(dirname "$0")"
. ./need.sh
need redis-server "the tests of the Redis drivers" redis-server
[ -x "$(ls -d /usr/lib/postgresql/*/bin/initdb 2>/dev/null | tail -1)" ] ||
  need initdb "the tests of the PostgreSQL driver" postgresql
need snmptrap "the tests of the SNMP listener" snmp
need snmptrapd "the tests of the snmptrapd route" snmptrapd
need rsyslogd "the tests of the rsyslog samples" rsyslog
[ -e "$(ls /usr/lib/*/rsyslog/lmnsd_ossl.so 2>/dev/null | tail -1)" ] ||
  need rsyslog-openssl "the tests of the rsyslog samples with TLS" rsyslog-openssl
need curl "the tests of the snmptrapd and rsyslog routes" curl
