#!/usr/bin/env bash
# Installs the real servers that the tests start for themselves. None is left running by this.
set -euo pipefail
cd "$(dirname "$0")"
. ./need.sh
need redis-server "the tests of the Redis drivers" redis-server
[ -x "$(ls -d /usr/lib/postgresql/*/bin/initdb 2>/dev/null | tail -1)" ] ||
  need initdb "the tests of the PostgreSQL driver" postgresql
bash ./openbao.sh
