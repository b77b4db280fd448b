#!/bin/sh
# Makes .env beside this script with a key and passwords of its own. What is there already stays.
set -eu
umask 077
cd "$(dirname "$0")"
touch .env
chmod 600 .env
for name in REDIS_PASSWORD DB_PASS INGEST_API_KEY WEBUI_API_KEY; do
  if ! grep -q "^$name=." .env; then
    printf '%s=%s\n' "$name" "$(head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n')" >>.env
  fi
done
grep -q '^# MOOG_WEBHOOK_URL\|^MOOG_WEBHOOK_URL' .env || echo '# MOOG_WEBHOOK_URL=' >>.env
echo "The keys are in $(pwd)/.env"
