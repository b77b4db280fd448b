#!/usr/bin/env bash
# /usr/local/bin/backup_mutt.sh: what mutt-backup.timer runs at 02:00 each day. Makes one folder
# $BACKUP_DIR/YYYYMMDD-HHMMSS with
#   data/          muttd backup of the embedded stores (where there are any)
#   postgres.dump  pg_dump in custom format (where DB_HOST is set)
#   redis/         the RDB file that Redis made and sent (where REDIS_HOST or REDIS_SENTINELS is set)
#   etc.tar.gz     /etc/mutt, encrypted as etc.tar.gz.enc where BACKUP_KEY_FILE is set; files of others in it that
#                  this user may not read are named and left out
#   SHA256SUMS     of all of it; without this file a folder is not a backup
# and drops folders older than BACKUP_KEEP_DAYS (30). Settings come from /etc/mutt/mutt.env and, over it,
# /etc/mutt/backup.env. Nothing is printed that is secret. Exit code 1: something is missing, the folder
# is kept under the name .failed for a look, and no old backup is dropped.
# Secrets that are in Vault only are not known here: give them in backup.env. There, too, a Redis user who
# may make snapshots (docs/redis.md), if that of mutt.env may not.
set -euo pipefail
export LC_ALL=C PATH=/usr/local/bin:/opt/mutt/bin:/usr/sbin:/usr/bin:/sbin:/bin
umask 077

# As systemd reads a value of one line.
# shellcheck disable=SC2016  # nothing is to expand
unquoted() {
  local value=$1
  value=${value#"${value%%[![:space:]]*}"}; value=${value%"${value##*[![:space:]]}"}
  case $value in
    \"*\") value=${value#\"}; printf '%s' "${value%\"}" | sed 's/\\\(["\\`$]\)/\1/g' ;;
    "'"*"'") value=${value#\'}; printf '%s' "${value%\'}" ;;
    *) printf '%s' "$value" | sed 's/\\\(.\)/\1/g' ;;
  esac
}

setting() {
  local file name value
  for file in /etc/mutt/backup.env /etc/mutt/mutt.env; do
    for name in "$@"; do
      [ -r "$file" ] || continue
      value=$(sed -n "s/^[[:space:]]*$name=//p" "$file" | tail -n 1)
      value=$(unquoted "$value")
      if [ -n "$value" ]; then printf '%s' "$value"; return; fi
    done
  done
}
# Switched off in one of the ways that muttd knows.
off() { case $(setting "$1" | tr '[:upper:]' '[:lower:]') in false|0|no|off) return 0 ;; *) return 1 ;; esac; }
BACKUP_DIR=$(setting BACKUP_DIR); BACKUP_DIR=${BACKUP_DIR:-/var/backups/mutt}
KEEP_DAYS=$(setting BACKUP_KEEP_DAYS); KEEP_DAYS=${KEEP_DAYS:-30}
KEY_FILE=$(setting BACKUP_KEY_FILE)
AFTER=$(setting BACKUP_AFTER)
MUTTD=${MUTTD:-/opt/mutt/bin/muttd}
DATA_DIR=${DATA_DIR:-/var/lib/mutt}

say() { echo "$(date -u +%FT%TZ) $*"; }
[[ $KEEP_DAYS =~ ^[0-9]+$ ]] || { say "BACKUP_KEEP_DAYS is not a number" >&2; exit 1; }
# Without its settings it would take PostgreSQL and Redis for unused, and say that all is well.
for file in /etc/mutt/mutt.env /etc/mutt/backup.env; do
  if [ -e "$file" ] && [ ! -r "$file" ]; then say "$(id -un) may not read $file" >&2; exit 1; fi
done
if ! install -d -m 0700 "$BACKUP_DIR" || [ ! -w "$BACKUP_DIR" ]; then
  say "$BACKUP_DIR cannot be written. Under mutt-backup.service another folder than /var/backups/mutt must belong to mutt and needs a drop-in with ReadWritePaths=$BACKUP_DIR" >&2
  exit 1
fi
exec 9>"$BACKUP_DIR/.lock"
flock -n 9 || { say "another backup is running" >&2; exit 1; }
NAME=$(date -u +%Y%m%d-%H%M%S)
WORK=$BACKUP_DIR/.$NAME
mkdir "$WORK"
DONE=0
finish() {
  if [ "$DONE" = 0 ]; then
    rm -rf "$BACKUP_DIR/$NAME.failed"
    mv "$WORK" "$BACKUP_DIR/$NAME.failed" 2>/dev/null || true
    say "the backup FAILED; what there is lies in $BACKUP_DIR/$NAME.failed" >&2
  fi
}
trap finish EXIT

# secret NAME…: the same, and what `file:/path` names.
secret() {
  local value; value=$(setting "$@")
  case $value in file:*) value=$(cat "${value#file:}") ;; esac
  printf '%s' "$value"
}
# Where TLS is verified without a CA of one's own.
ROOTS=""
for file in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do [ ! -r "$file" ] || { ROOTS=$file; break; }; done

# Embedded stores: of one process, or of each service (with shared stores: its events).
for dir in "$DATA_DIR" "$DATA_DIR"/*/; do
  dir=${dir%/}
  [ -e "$dir/catalog.db" ] || [ -d "$dir/events" ] || continue
  name=$(basename "$dir"); [ "$dir" != "$DATA_DIR" ] || name=all
  mkdir -p "$WORK/data"
  "$MUTTD" backup --data-dir "$dir" --to "$WORK/data/$name" >/dev/null
  "$MUTTD" backup verify "$WORK/data/$name" >/dev/null
  say "embedded stores: $dir"
done

host=$(setting DB_HOST POSTGRES_HOST)
if [ -n "$host" ]; then
  # Unquoted values of a service file; the password goes by environment, never by argument.
  PGPASSWORD=$(secret DB_PASS_CURRENT DB_PASS DB_PASSWORD POSTGRES_PASSWORD) PGSSLMODE=$(off DB_TLS_ENABLED && echo prefer || echo verify-full) \
    PGSSLROOTCERT=$(ca=$(setting DB_TLS_CA_CERT_PATH DB_SSL_ROOT_CERT); echo "${ca:-$ROOTS}") \
    pg_dump --format=custom --no-password --host "$host" --port "$(p=$(setting DB_PORT POSTGRES_PORT); echo "${p:-5432}")" \
    --username "$(u=$(setting DB_USER POSTGRES_USER); echo "${u:-mutt_user}")" --file "$WORK/postgres.dump" \
    "$(d=$(setting DB_NAME POSTGRES_DB); echo "${d:-mutt_db}")"
  pg_restore --list "$WORK/postgres.dump" >/dev/null
  say "PostgreSQL: $host"
fi

host=$(setting REDIS_HOST)
sentinels=$(setting REDIS_SENTINELS)
if [ -n "$host$sentinels" ]; then
  mkdir "$WORK/redis"
  port=$(setting REDIS_PORT); port=${port:-6379}
  tls=()
  # On unless switched off, as for muttd.
  if ! off REDIS_TLS_ENABLED; then
    ca=$(setting REDIS_CA_CERT_PATH REDIS_TLS_CA_CERT)
    tls=(--tls --cacert "${ca:-$ROOTS}")
  fi
  if [ -n "$sentinels" ]; then
    # Where the master is, they say; as for muttd, REDIS_HOST is not asked then.
    name=$(setting REDIS_SENTINEL_MASTER); host=""
    for sentinel in ${sentinels//,/ }; do
      sport=${sentinel##*:}; [ "$sport" != "$sentinel" ] || sport=26379
      host="" port=""
      { read -r host && read -r port; } < <(timeout 10 redis-cli --raw -h "${sentinel%:*}" -p "$sport" ${tls[@]+"${tls[@]}"} \
        SENTINEL get-master-addr-by-name "${name:-mymaster}" 2>/dev/null) || true
      if [ -n "$host" ] && [[ $port =~ ^[0-9]+$ ]]; then break; fi
      host=""
    done
    [ -n "$host" ] || { say "no Redis Sentinel names a master" >&2; exit 1; }
  fi
  arguments=(-h "$host" -p "$port" ${tls[@]+"${tls[@]}"})
  user=$(setting REDIS_USER REDIS_USERNAME); [ -z "$user" ] || arguments+=(--user "$user")
  password=$(secret REDIS_PASS_CURRENT REDIS_PASS REDIS_PASSWORD)
  [ -z "$password" ] || export REDISCLI_AUTH="$password"
  # A snapshot that Redis makes for us (as for a replica: BGSAVE, then sent); works for a remote one too.
  redis-cli "${arguments[@]}" --rdb "$WORK/redis/dump.rdb" >/dev/null 2>&1 || { say "Redis gave no snapshot" >&2; exit 1; }
  [ "$(head -c 5 "$WORK/redis/dump.rdb")" = REDIS ] || { say "Redis gave no snapshot" >&2; exit 1; }
  unset REDISCLI_AUTH
  say "Redis: $host"
fi

if [ -d /etc/mutt ]; then
  hidden=$(find /etc/mutt ! -readable -print 2>/dev/null | paste -sd' ' || true)
  [ -z "$hidden" ] || say "note: not in this backup, since $(id -un) may not read it: $hidden"
  tar -C / --ignore-failed-read -czf "$WORK/etc.tar.gz" etc/mutt
  if [ -n "$KEY_FILE" ]; then
    openssl enc -aes-256-ctr -pbkdf2 -iter 200000 -salt -pass "file:$KEY_FILE" -in "$WORK/etc.tar.gz" -out "$WORK/etc.tar.gz.enc"
    rm "$WORK/etc.tar.gz"
  fi
  say "/etc/mutt"
fi

(cd "$WORK" && find . -type f -print0 | sort -z | xargs -0 sha256sum) >"$BACKUP_DIR/.sums"
mv "$BACKUP_DIR/.sums" "$WORK/SHA256SUMS"
chmod -R go-rwx "$WORK"
sync -f "$WORK"
mv "$WORK" "$BACKUP_DIR/$NAME"
DONE=1
find "$BACKUP_DIR" -maxdepth 1 -type d -name '20??????-??????*' -mtime "+$KEEP_DAYS" -exec rm -rf {} +
say "done: $BACKUP_DIR/$NAME"
# To another machine, say: BACKUP_AFTER="aws s3 sync /var/backups/mutt s3://…" in /etc/mutt/backup.env
if [ -n "$AFTER" ]; then sh -c "$AFTER"; fi
