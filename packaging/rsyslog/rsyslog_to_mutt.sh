#!/bin/bash
# Posts what rsyslog's omprog writes, one JSON object per line, to MUTT, and answers each line with OK
# when MUTT has it on disk; with anything else, rsyslog keeps the message and tries again.
#
# Environment, or lines NAME=VALUE in $MUTT_ENV_FILE (default /etc/mutt/rsyslog.env, mode 0600):
#   MUTT_INGEST_URL           default http://127.0.0.1:8080/ingest
#   MUTT_INGEST_API_KEY       required, or
#   MUTT_INGEST_API_KEY_FILE  a file with the key in its first line
# A key of either file is read again when MUTT refuses it, so it may be replaced at any time.
#   MUTT_CACERT               CA file for an https URL; the system's CAs without it
#   MUTT_REFUSED_FILE         default /var/spool/mutt/rsyslog-refused.jsonl: what MUTT will never take
#   MUTT_TIMEOUT_SECONDS      of one request, default 10; less than confirmTimeout
set -uo pipefail
umask 077
PATH=/usr/sbin:/usr/bin:/sbin:/bin

MUTT_ENV_FILE=${MUTT_ENV_FILE:-/etc/mutt/rsyslog.env}
given_key=${MUTT_INGEST_API_KEY:-}
given_key_file=${MUTT_INGEST_API_KEY_FILE:-}
# Read, not sourced: a file of settings is no program. The environment goes first.
if [ -r "$MUTT_ENV_FILE" ]; then
  while IFS='=' read -r name value || [ -n "$name" ]; do
    [[ $name =~ ^MUTT_[A-Z_]+$ ]] || continue
    value=${value%$'\r'}
    case $value in \"*\") value=${value#\"} value=${value%\"} ;; esac
    [ -n "${!name:-}" ] || printf -v "$name" '%s' "$value"
  done <"$MUTT_ENV_FILE"
fi
url=${MUTT_INGEST_URL:-http://127.0.0.1:8080/ingest}
refused=${MUTT_REFUSED_FILE:-/var/spool/mutt/rsyslog-refused.jsonl}
key=""

# Sets `key` to what the settings say now, ready for curl. Fails when that is nothing, or no other key.
read_key() {
  local name value file=$given_key_file new=$given_key before=$key
  if [ -r "$MUTT_ENV_FILE" ]; then
    while IFS='=' read -r name value || [ -n "$name" ]; do
      value=${value%$'\r'}
      case $value in \"*\") value=${value#\"} value=${value%\"} ;; esac
      case $name in
        MUTT_INGEST_API_KEY) new=${new:-$value} ;;
        MUTT_INGEST_API_KEY_FILE) file=${file:-$value} ;;
      esac
    done <"$MUTT_ENV_FILE"
  fi
  if [ -z "$new" ] && [ -n "$file" ]; then
    IFS= read -r new 2>/dev/null <"$file" || true
    new=${new%$'\r'}
  fi
  [ -n "$new" ] || return 1
  new=${new//\\/\\\\}
  key=${new//\"/\\\"}
  [ "$key" != "$before" ]
}

# Posts $1; `code` becomes the status, or curl's complaint.
post() {
  # The key goes by a file descriptor: arguments are for everybody to see.
  code=$(curl --silent --show-error --output /dev/null --write-out '%{http_code}' \
    --max-time "${MUTT_TIMEOUT_SECONDS:-10}" ${MUTT_CACERT:+--cacert "$MUTT_CACERT"} \
    --header 'Content-Type: application/json' --header 'Expect:' --data-binary @- \
    --config <(printf 'header = "X-API-KEY: %s"\n' "$key") "$url" 2>&1 <<<"$1")
}

if ! read_key; then
  # rsyslog waits for the first OK, and starts this again when it does not come.
  echo "Error: MUTT_INGEST_API_KEY is not set"
  exit 1
fi

echo OK
while IFS= read -r json; do
  post "$json"
  if [ "$code" = 401 ] && read_key; then
    post "$json"
  fi
  case $code in
    2[0-9][0-9]) echo OK ;;
    400 | 413 | 415 | 422)
      # No later try will do better; one bad message must not hold up all others.
      if printf '%s\n' "$json" >>"$refused"; then
        logger -t rsyslog_to_mutt -p daemon.err -- "MUTT refuses a message (HTTP $code); kept in $refused" 2>/dev/null
        echo OK
      else
        echo "Error: MUTT refuses a message (HTTP $code), and $refused cannot be written"
      fi
      ;;
    [0-9][0-9][0-9]) echo "Error: HTTP $code" ;;
    *) echo "Error: $(printf '%s' "$code" | tr '\n' ' ' | cut -c1-200)" ;;
  esac
done
