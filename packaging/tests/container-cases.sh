# Sourced by container.sh: what must hold, in order.
# shellcheck shell=bash disable=SC2154,SC2016,SC2086  # UNITS is a list; WORK, UNITS and the functions are container.sh's; inner shells expand

# ------------------------------------------------------------------ nothing is changed before all is checked
# Redis as the guide asks for it: nothing that was acknowledged is lost. muttd's user has the rights of
# docs/redis.md and no more; another may make snapshots.
rights=$(grep -m 1 '^~mutt:' docs/redis.md)
cat >>"$R/etc/redis/redis.conf" <<REDIS
appendonly yes
appendfsync always
user mutt on >redis-test-1 $rights
user backup on >backup-test-1 resetchannels -@all +ping +psync +sync +replconf
REDIS
in_c systemctl restart redis-server; in_c systemctl start postgresql
same "Redis syncs every write" always "$(in_c redis-cli --raw CONFIG GET appendfsync | tail -n 1)"
in_c su postgres -c "psql -qc \"create role mutt_app login password 'pg-test-1'\" -c 'create database mutt owner mutt_app'"
# A receiver of alerts: one line of JSON each in /var/tmp/alerts.
cat >"$R/var/tmp/receiver.sh" <<'RECEIVER'
#!/bin/bash
IFS=' ' read -r method _
length=0
while IFS= read -r header && [ "$header" != $'\r' ]; do
  case ${header,,} in content-length:*) length=${header#*:}; length=${length//[!0-9]/} ;; esac
done
if [ "$method" = POST ]; then body=$(head -c "$length"); printf '%s\n' "$body" >>/var/tmp/alerts; fi
printf 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'
RECEIVER
chmod +x "$R/var/tmp/receiver.sh"; : >"$R/var/tmp/alerts"
in_c bash -c 'printf "[Socket]\nListenStream=127.0.0.1:9099\nAccept=yes\nMaxConnections=64\nTriggerLimitIntervalSec=0\n" >/run/systemd/system/receiver.socket
  printf "[Service]\nExecStart=/var/tmp/receiver.sh\nStandardInput=socket\nStandardError=journal\n" >/run/systemd/system/receiver@.service
  systemctl daemon-reload; systemctl start receiver.socket'
# The environment file of the original's guide. Its six required changes, and secrets in it (option C).
cat >"$R/src/answers" <<'ANSWERS'
TOPOLOGY=services
SERVER_PORT_INGESTOR=8080
METRICS_PORT_INGESTOR=8080
HEALTH_PORT_ALERTER=8081
METRICS_PORT_ALERTER=8082
HEALTH_PORT_MOOG=8084
METRICS_PORT_MOOG=8083
SERVER_PORT_WEBUI=8090
HEALTH_PORT_REMEDIATION=8087
METRICS_PORT_REMEDIATION=8086
REDIS_HOST=localhost
REDIS_PORT=6379
REDIS_DB=0
REDIS_TLS_ENABLED=false
REDIS_MAX_CONNECTIONS=20
REDIS_SOCKET_KEEPALIVE=true
REDIS_HEALTH_CHECK_INTERVAL=30
INGEST_QUEUE_NAME=mutt:ingest_queue
ALERT_QUEUE_NAME=mutt:alert_queue
MAX_INGEST_QUEUE_SIZE=1000000
DB_HOST=localhost
DB_PORT=5432
DB_NAME=mutt
DB_USER=mutt_app
DB_TLS_ENABLED=false
DB_POOL_MIN_CONN=2
DB_POOL_MAX_CONN=10
POD_NAME=mutt-server-01
BRPOPLPUSH_TIMEOUT=5
CACHE_RELOAD_INTERVAL=300
JANITOR_INTERVAL=60
HEARTBEAT_INTERVAL=10
HEARTBEAT_EXPIRY=30
POISON_MESSAGE_MAX_RETRIES=3
ALERTER_PROCESSING_LIST_PREFIX=mutt:processing:alerter
ALERTER_DLQ_NAME=mutt:dlq:alerter
UNHANDLED_PREFIX=mutt:unhandled
UNHANDLED_THRESHOLD=100
UNHANDLED_EXPIRY_SECONDS=86400
UNHANDLED_DEFAULT_TEAM=NETO
MOOG_WEBHOOK_URL=http://127.0.0.1:9099/events/webhook
MOOG_TIMEOUT=10
MOOG_PROCESSING_LIST_PREFIX=mutt:processing:moog
MOOG_DLQ_NAME=mutt:dlq:moog
MOOG_RATE_LIMIT=50
MOOG_RATE_PERIOD=1
MOOG_RATE_LIMIT_KEY=mutt:rate_limit:moog
MOOG_MAX_RETRIES=5
MOOG_RETRY_BASE_DELAY=1
MOOG_RETRY_MAX_DELAY=60
MOOG_CB_FAILURE_THRESHOLD=5
MOOG_CB_OPEN_SECONDS=60
MOOG_CB_KEY_PREFIX=mutt:cb:moog
REMEDIATION_ENABLED=true
REMEDIATION_INTERVAL=300
REMEDIATION_BATCH_SIZE=10
MAX_POISON_RETRIES=3
MOOG_HEALTH_CHECK_ENABLED=true
MOOG_HEALTH_TIMEOUT=5
DYNAMIC_CONFIG_ENABLED=true
LOG_LEVEL=INFO
MUTT_TESTING=false
# WEBUI_API_KEY=changeme
REDIS_USER=mutt
REDIS_PASS=redis-test-1
DB_PASS=pg-test-1
MOOG_API_KEY=moog-test-1
MUTT_GRACE_SECONDS=5
ANSWERS
INSTALL=(install --unattended --binary /src/muttd --config /src/answers)
state >"$WORK/before"
deploys 2 "a wrong checksum is refused" "${INSTALL[@]}" --sha256 00ff
deploys 2 "an unknown option is refused" "${INSTALL[@]}" --fly
sed 's/^REDIS_PORT=.*/REDIS_PORT=6390/' "$R/src/answers" >"$R/src/no-redis"
deploys 2 "a Redis that does not answer is refused" install --unattended --binary /src/muttd --config /src/no-redis
(cat "$R/src/answers"; echo MOOG_API_KEY=changeme; echo MOOG_WEBHOOK_URL=https://moog.example.com/x) >"$R/src/placeholders"
deploys 2 "placeholders are refused" install --unattended --binary /src/muttd --config /src/placeholders
grep -q 'MOOG_API_KEY MOOG_WEBHOOK_URL' "$WORK/out" || fail "placeholders are named"
grep -q changeme "$WORK/out" && fail "their values are not shown"
(cat "$R/src/answers"; echo MOOG_RATE_LIMIT=many) >"$R/src/invalid"
deploys 2 "a configuration that muttd refuses is refused" install --unattended --binary /src/muttd --config /src/invalid
in_c systemd-run --quiet --unit=squatter redis-server --port 8090 --save ""
within 20 in_c redis-cli -p 8090 ping >/dev/null 2>&1 || fail "the squatter runs"
deploys 2 "a port that is taken is refused" "${INSTALL[@]}"
in_c systemctl stop squatter
sed 's/^DB_PORT=.*/DB_PORT=5499/' "$R/src/answers" >"$R/src/no-postgres"
deploys 2 "a PostgreSQL that does not answer is refused" install --unattended --binary /src/muttd --config /src/no-postgres
unchanged before "a refused installation has changed nothing"

# ------------------------------------------------------------------ a failure at any step goes back
STEPS="user directories settings binary units host-files firewall enable start"
for step in $STEPS; do
  DEPLOY_ENV="MUTT_DEPLOY_FAIL_AT=$step" deploys 1 "failing at '$step' ends with 1" "${INSTALL[@]}"
  unchanged before "after failing at '$step' everything is as before, byte for byte"
done

for secret in REDIS_PASS DB_PASS; do
  sed "s/^$secret=.*/$secret=not-the-one/" "$R/src/answers" >"$R/src/wrong"
  DEPLOY_ENV=MUTT_DEPLOY_HEALTH_SECONDS=6 deploys 1 "a wrong $secret ends with 1" install --unattended --binary /src/muttd --config /src/wrong
  grep -q 'is not there yet; trying again' "$WORK/out" || { cat "$WORK/out"; fail "the reason is shown"; }
  grep -q not-the-one "$WORK/out" && fail "the password is not"
  unchanged before "after a wrong $secret everything is as before"
done

# ------------------------------------------------------------------ the original is there
in_c bash -c '
  groupadd --system mutt; useradd --system -g mutt --shell /bin/false --home-dir /opt/mutt --create-home mutt
  mkdir -p /opt/mutt/services /etc/mutt/secrets; echo "print(1)" >/opt/mutt/services/x.py; chmod 700 /etc/mutt
  grep -v TOPOLOGY /src/answers >/etc/mutt/mutt.env
  echo "INGEST_API_KEY=original-ingest-key" >>/etc/mutt/mutt.env; echo "WEBUI_API_KEY=original-web-key" >>/etc/mutt/mutt.env
  chown -R mutt:mutt /etc/mutt /opt/mutt; chmod 600 /etc/mutt/mutt.env
  for u in ingestor alerter moog-forwarder webui remediation; do
    printf "[Unit]\nDescription=the original\n[Service]\nUser=mutt\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n" >/etc/systemd/system/mutt-$u.service
  done
  systemctl daemon-reload; systemctl enable -q --now mutt-ingestor mutt-alerter mutt-webui; systemctl start mutt-remediation'
state >"$WORK/original"
in_c sha256sum /etc/mutt/mutt.env >"$WORK/env.sha"
for step in units enable start; do
  DEPLOY_ENV="MUTT_DEPLOY_FAIL_AT=$step" deploys 1 "over the original: failing at '$step' ends with 1" "${INSTALL[@]}"
  unchanged original "the original is back after '$step': files, units, what was enabled and what ran"
done
deploys 0 "the original is replaced" "${INSTALL[@]}"
grep -q 'taking over /etc/mutt/mutt.env' "$WORK/out" || fail "mutt.env is taken over"
grep -q 'METRICS_PORT_INGESTOR is not read' "$WORK/out" || fail "there are notes on its settings"
same "mutt.env is as it was" "$(cat "$WORK/env.sha")" "$(in_c sha256sum /etc/mutt/mutt.env)"

# ------------------------------------------------------------------ the units
for unit in $UNITS; do
  active "$unit" || fail "$unit is active"
  same "$unit is enabled" enabled "$(in_c systemctl is-enabled "$unit")"
  same "$unit told systemd that it is ready" notify "$(in_c systemctl show -p Type --value "$unit")"
  status=$(in_c systemctl show -p StatusText --value "$unit")
  case $status in roles*) ok "$unit says what it does: $status" ;; *) fail "$unit has the status '$status'" ;; esac
  exposure=$(in_c systemd-analyze security --no-pager "$unit.service" | sed -n 's/.*exposure level for .*: \([0-9.]*\) .*/\1/p')
  awk -v e="$exposure" 'BEGIN { exit !(e != "" && e <= 3.0) }' || fail "systemd-analyze security $unit is $exposure"
  ok "systemd-analyze security $unit: $exposure"
  same "$unit runs as mutt" mutt "$(in_c ps -o user= -p "$(pid_of "$unit")")"
done
for port in 8080 8081 8082 8083 8084 8086 8087 8090; do health $port >/dev/null || fail "health on $port"; done
ok "health answers on every port of the manual"
same "mutt.env may be read by nobody else" "600 mutt:mutt" "$(in_c stat -c '%a %U:%G' /etc/mutt/mutt.env)"
same "/etc/mutt is closed" "700 mutt:mutt" "$(in_c stat -c '%a %U:%G' /etc/mutt)"
same "the data is closed" "700 mutt:mutt" "$(in_c stat -c '%a %U:%G' /var/lib/mutt)"
# post KEY [MESSAGE [PATH]]
post() { in_c curl -sS -o /dev/null -w '%{http_code}' -X POST "http://127.0.0.1:8080${3:-/api/v2/ingest}" -H "X-API-KEY: $1" -H 'Content-Type: application/json' -d "{\"hostname\":\"h\",\"message\":\"${2:-installation test event}\",\"timestamp\":\"2026-11-22T10:00:00Z\",\"syslog_severity\":6}"; }
same "an event is taken with the original's key" 200 "$(post original-ingest-key)"

# ------------------------------------------------------------------ Redis and PostgreSQL
sql() { in_c env PGPASSWORD=pg-test-1 psql -h 127.0.0.1 -U mutt_app -Atc "$1" mutt; }
redis() { in_c redis-cli --raw "$@"; }
audited() { [ "$(sql "select count(*) from event_audit_log where raw_message::text like '%$1%'")" = "$2" ]; }
worked() { within 60 audited "$1" 1 && within 60 alerted "$1" 1; }
alerted() { [ "$(grep -c "$1" "$R/var/tmp/alerts")" = "$2" ]; }
sql "insert into alert_rules (match_string, priority, prod_handling, dev_handling, team_assignment) values ('faulty', 10, 'Page_only', 'Page_only', 'NETO')" >/dev/null
sleep 2
same "an event is taken at /ingest" 200 "$(post original-ingest-key 'faulty-one on port 1' /ingest)"
worked faulty-one || fail "the event is audited in PostgreSQL and its alert reaches the receiver"
ok "an event is audited in PostgreSQL, and its alert reaches the receiver"
grep -q moog-test-1 "$R/var/tmp/alerts" && fail "the receiver's key is in no alert"
in_c systemctl stop mutt-alerter
same "without an alerter an event is taken" 200 "$(post original-ingest-key 'faulty-two on port 2' /ingest)"
same "redis-cli shows it in the contract's list" 1 "$(redis LRANGE mutt:ingest_queue 0 -1 | grep -c 'faulty-two')"
same "redis-cli counts it" 1 "$(redis LLEN mutt:ingest_queue)"
in_c systemctl start mutt-alerter
worked faulty-two || fail "it is worked when an alerter is there"
same "the list is empty then" 0 "$(redis LLEN mutt:ingest_queue)"
same "workers beat under the name of the environment" 0 "$(redis KEYS 'mutt:heartbeat:alerter:mutt-server-01-*' | grep -q . ; echo $?)"
same "every key is the contract's" "" "$(redis KEYS '*' | grep -v '^mutt:' || true)"

before=$(for unit in $UNITS; do pid_of "$unit"; done | paste -sd' ')
in_c systemctl stop redis-server
sick() { ! health 8080 >/dev/null 2>&1; }
within 20 sick || fail "the health of the ingestor is red without Redis"
same "without Redis an event is refused" 503 "$(post original-ingest-key 'faulty-three' /ingest)"
for unit in $UNITS; do active "$unit" || fail "$unit stays up while Redis is away"; done
in_c systemctl start redis-server
for port in 8080 8081 8082 8083 8084 8086 8087 8090; do within 60 health $port >/dev/null 2>&1 || fail "health on $port after Redis is back"; done
same "nothing was restarted for it" "$before" "$(for unit in $UNITS; do pid_of "$unit"; done | paste -sd' ')"
same "an event is taken again" 200 "$(post original-ingest-key 'faulty-four' /ingest)"
worked faulty-four || fail "it is worked"
in_c systemctl stop postgresql
same "without PostgreSQL an event is taken" 200 "$(post original-ingest-key 'faulty-five' /ingest)"
sleep 3
in_c systemctl start postgresql
worked faulty-five || fail "it is worked when PostgreSQL is back"
for port in 8082 8084 8087 8090; do within 60 health $port >/dev/null 2>&1 || fail "health on $port after PostgreSQL is back"; done
same "nothing was restarted for that either" "$before" "$(for unit in $UNITS; do pid_of "$unit"; done | paste -sd' ')"

# Started before Redis: longer than the start's time-out, and than one extension of it.
in_c systemctl stop $UNITS redis-server
for unit in $UNITS; do
  in_c mkdir -p "/etc/systemd/system/$unit.service.d"
  printf '[Service]\nTimeoutStartSec=6\n' >"$R/etc/systemd/system/$unit.service.d/test.conf"
done
in_c systemctl daemon-reload
in_c systemctl start --no-block $UNITS
sleep 45
for unit in $UNITS; do
  same "$unit waits for its Redis" "activating 0" "$(in_c systemctl is-active "$unit" || true) $(in_c systemctl show -p NRestarts --value "$unit")"
done
in_c systemctl start redis-server
for unit in $UNITS; do
  within 60 active "$unit" || fail "$unit becomes active when Redis comes"
  same "$unit was never restarted" 0 "$(in_c systemctl show -p NRestarts --value "$unit")"
  rm -r "$R/etc/systemd/system/$unit.service.d"
done
in_c systemctl daemon-reload
for port in 8080 8081 8082 8083 8084 8086 8087 8090; do within 30 health $port >/dev/null || fail "health on $port after a start before Redis"; done
# as_mutt ARGS…: a command as the documents show it.
as_mutt() { in_c setpriv --reuid mutt --regid mutt --clear-groups /opt/mutt/bin/muttd "$@" --config /etc/mutt/muttd.toml --env-file /etc/mutt/mutt.env --data-dir /var/lib/mutt; }
as_mutt doctor >"$WORK/out" 2>&1 || { cat "$WORK/out"; fail "muttd doctor is content"; }
grep -q 'mutt-ingestor runs on .*5514/udp' "$WORK/out" || { cat "$WORK/out"; fail "doctor knows our own processes"; }
as_mutt queue ls >"$WORK/ls" 2>&1 || { cat "$WORK/ls"; fail "muttd queue ls finds the five services"; }
for path in catalog.db queue; do [ ! -e "$R/var/lib/mutt/$path" ] || fail "a look makes no stores"; done
grep -q 'Redis at .* answers and keeps what it takes' "$WORK/out" || { cat "$WORK/out"; fail "doctor says what Redis keeps"; }
ok "muttd doctor is content with the stores"

before=$(pid_of mutt-ingestor)
in_c systemctl reload mutt-ingestor || fail "systemctl reload works"
reloaded() { logged mutt-ingestor 'configuration and rules reloaded'; }
within 20 reloaded || fail "the reload is in the log"
settled() { [ "$(in_c systemctl show -p StatusText --value mutt-ingestor)" = "the configuration was reloaded" ] && active mutt-ingestor; }
within 20 settled || fail "the reload is told to systemd"
same "systemctl reload keeps the process" "$before" "$(pid_of mutt-ingestor)"

in_c kill -9 "$before"
restarted() { active mutt-ingestor && [ "$(pid_of mutt-ingestor)" != "$before" ]; }
within 30 restarted || fail "kill -9 is followed by a restart"
within 30 health 8080 >/dev/null || fail "it works after kill -9"
ok "kill -9 is followed by a restart"

in_c mkdir -p /etc/systemd/system/mutt-remediation.service.d
printf '[Service]\nWatchdogSec=4\n' >"$R/etc/systemd/system/mutt-remediation.service.d/test.conf"
in_c systemctl daemon-reload; in_c systemctl restart mutt-remediation
sleep 10
same "a process that works feeds its watchdog" 0 "$(in_c systemctl show -p NRestarts --value mutt-remediation)"
hung=$(pid_of mutt-remediation)
in_c kill -STOP "$hung"
replaced() { active mutt-remediation && [ "$(pid_of mutt-remediation)" != "$hung" ]; }
within 90 replaced || fail "a process that hangs is replaced by the watchdog"
ok "a process that hangs is replaced by the watchdog"
rm -r "$R/etc/systemd/system/mutt-remediation.service.d"; in_c systemctl daemon-reload

in_c systemctl stop mutt-ingestor
same "systemctl stop drains and ends clean" success "$(in_c systemctl show -p Result --value mutt-ingestor)"
logged mutt-ingestor 'stopped clean' || fail "the drain is in the log"
in_c systemctl start mutt-ingestor
within 30 health 8080 >/dev/null || fail "it starts again"

in_c systemctl start mutt-alerter@1 mutt-alerter@2
for port in 8111 8112 8121 8122; do within 30 health $port >/dev/null || fail "health of an instance on $port"; done
ok "two more alerters run beside the first, on ports of their own"
in_c systemctl stop mutt-alerter@1 mutt-alerter@2
in_c systemctl restart mutt.target
within 60 health 8090 >/dev/null || fail "mutt.target restarts the services"
for unit in $UNITS; do within 60 active "$unit" || fail "$unit is active after the target was restarted"; done
ok "mutt.target stands for all of them"
in_c systemd-run --quiet --unit=writer -p StandardError=append:/var/log/mutt/writer.log bash -c 'while :; do echo line >&2; sleep 0.2; done'
written() { in_c test -s /var/log/mutt/writer.log; }
within 20 written || fail "a unit writes a file"
in_c logrotate -f /etc/logrotate.d/mutt || fail "logrotate works"
in_c test -s /var/log/mutt/writer.log.1 || fail "the file is rotated"
within 20 written || fail "the unit goes on in the new file"
ok "a unit that writes a file goes on in the new one after a rotation"
in_c systemctl stop writer; in_c bash -c 'rm -f /var/log/mutt/*'

# ------------------------------------------------------------------ backup
in_c install -m 0755 /src/packaging/backup/backup_mutt.sh /usr/local/bin/
in_c cp /src/packaging/backup/mutt-backup.service /src/packaging/backup/mutt-backup.timer /run/systemd/system/
in_c install -d -m 0700 -o mutt -g mutt /var/backups/mutt
in_c systemctl daemon-reload
printf 'REDIS_USER=backup\nREDIS_PASS=backup-test-1\n' >"$R/etc/mutt/backup.env"; in_c chown mutt: /etc/mutt/backup.env
in_c mkdir -m 0700 /var/backups/mutt/20200101-000000; in_c touch -d 2020-01-01 /var/backups/mutt/20200101-000000
# A feeder's file, as root's.
in_c install -m 0600 /dev/null /etc/mutt/rsyslog.env
in_c systemctl start mutt-backup.service || fail "the backup's service works"
grep -q 'may not read it: /etc/mutt/rsyslog.env' < <(in_c journalctl -u mutt-backup -o cat --no-pager) || fail "it names what it may not read"
made=$(in_c find /var/backups/mutt -maxdepth 1 -name '20*-*' ! -name 2020*)
in_c bash -c "cd '$made' && sha256sum --quiet -c SHA256SUMS" || fail "the backup's sums are right"
for path in postgres.dump redis/dump.rdb etc.tar.gz data/alerter/manifest.json; do
  in_c test -s "$made/$path" || fail "the backup holds $path"
done
same "nobody else may read any of it" "" "$(in_c find /var/backups/mutt -mindepth 1 -perm /077)"
same "backups older than 30 days are dropped" "" "$(in_c find /var/backups/mutt -name 20200101-000000)"
ok "the backup holds all stores, the settings and the data of each service"
printf 'port 26379\nsentinel monitor here 127.0.0.1 6379 1\n' >"$R/var/tmp/sentinel.conf"
in_c chmod 0666 /var/tmp/sentinel.conf
in_c systemd-run --quiet --unit=sentinel redis-server /var/tmp/sentinel.conf --sentinel
within 20 in_c redis-cli -p 26379 ping >/dev/null 2>&1 || fail "a Sentinel runs"
in_c rm -rf "$made"
printf 'REDIS_SENTINELS=127.0.0.1:1,127.0.0.1\nREDIS_SENTINEL_MASTER=here\nREDIS_HOST=nowhere\nREDIS_TLS_ENABLED=No\n' >>"$R/etc/mutt/backup.env"
in_c systemctl start mutt-backup.service || { in_c journalctl -u mutt-backup -o cat --no-pager -n 20; fail "a backup by Sentinel"; }
made=$(in_c find /var/backups/mutt -maxdepth 1 -name '20*-*' ! -name 2020*)
in_c test -s "$made/redis/dump.rdb" || fail "the backup asks the master that the Sentinels name"
ok "the backup asks the master that the Sentinels name"
in_c systemctl stop sentinel; in_c rm -f /etc/mutt/rsyslog.env
printf 'BACKUP_DIR=/srv/elsewhere\n' >>"$R/etc/mutt/backup.env"
if in_c systemctl start mutt-backup.service 2>/dev/null; then fail "a folder that cannot be written fails"; fi
grep -q 'ReadWritePaths=/srv/elsewhere' < <(in_c journalctl -u mutt-backup -o cat --no-pager) || fail "it says what to do"
printf 'REDIS_USER=backup\nREDIS_PASS=backup-test-1\n' >"$R/etc/mutt/backup.env"
in_c mkdir /var/backups/mutt/20200101-000000; in_c touch -d 2020-01-01 /var/backups/mutt/20200101-000000
in_c systemctl stop redis-server
if in_c systemctl start mutt-backup.service 2>/dev/null; then fail "a backup without its Redis fails"; fi
in_c bash -c 'ls -d /var/backups/mutt/*.failed' >/dev/null || fail "what there is of it is kept"
in_c test -d /var/backups/mutt/20200101-000000 || fail "no old backup is dropped when the new one failed"
ok "a backup that lacks something fails and drops nothing"
in_c systemctl start redis-server
in_c systemctl start mutt-backup.timer
in_c systemctl is-active --quiet mutt-backup.timer || fail "the timer runs"
in_c systemctl stop mutt-backup.timer
rm "$R/etc/mutt/backup.env"
in_c bash -c 'rm -rf /usr/local/bin/backup_mutt.sh /run/systemd/system/mutt-backup.* /var/backups/mutt; systemctl daemon-reload; systemctl reset-failed'

# ------------------------------------------------------------------ again, upgrade, rollback
pids() { for unit in $UNITS; do pid_of "$unit"; done | paste -sd' '; }
before=$(pids)
deploys 0 "installing the same again" "${INSTALL[@]}"
same "it has restarted nothing" "$before" "$(pids)"
sha() { in_c sha256sum /opt/mutt/bin/muttd | cut -d' ' -f1; }
old=$(sha)
(cat "$R/src/muttd"; echo another build) >"$R/src/muttd-new"; chmod +x "$R/src/muttd-new"
(cd "$R/src" && sha256sum muttd-new >muttd-new.sha256)
touch "$R/var/lib/mutt/data-stays"
deploys 0 "an upgrade" upgrade --unattended --binary /src/muttd-new
new=$(sha)
[ "$new" != "$old" ] || fail "the binary is replaced"
same "an upgrade keeps the configuration" "$(cat "$WORK/env.sha")" "$(in_c sha256sum /etc/mutt/mutt.env)"
for unit in $UNITS; do active "$unit" || fail "$unit is active after the upgrade"; done
printf '#!/bin/sh\ncase "$1" in serve) exit 1 ;; *) exec /src/muttd "$@" ;; esac\n' >"$R/src/muttd-bad"; chmod +x "$R/src/muttd-bad"
state | grep -v -e ' /var/lib/mutt' >"$WORK/good"
DEPLOY_ENV="MUTT_DEPLOY_HEALTH_SECONDS=6" deploys 1 "an upgrade to a build that does not work fails" upgrade --unattended --unverified --binary /src/muttd-bad
state | grep -v -e ' /var/lib/mutt' >"$WORK/after"
diff -u "$WORK/good" "$WORK/after" || fail "it goes back by itself"
for port in 8080 8082 8084 8087 8090; do within 30 health $port >/dev/null || fail "health on $port after the failed upgrade"; done
ok "it goes back by itself, and everything works again"
for step in binary units host-files start; do
  DEPLOY_ENV="MUTT_DEPLOY_FAIL_AT=$step" deploys 1 "an upgrade that fails at '$step' ends with 1" upgrade --unattended --binary /src/muttd
  same "and the build from before is back" "$new" "$(sha)"
done
for unit in $UNITS; do within 30 active "$unit" || fail "$unit is active"; done
deploys 0 "rollback" rollback --unattended
same "rollback brings the build before the upgrade" "$old" "$(sha)"
[ -e "$R/var/lib/mutt/data-stays" ] || fail "data stays"
for port in 8080 8082 8084 8087 8090; do within 30 health $port >/dev/null || fail "health on $port after the rollback"; done
deploys 0 "status" status
grep -q 'mutt-ingestor .*active' "$WORK/out" || fail "status shows the services"

# ------------------------------------------------------------------ uninstall
deploys 0 "uninstall" uninstall --unattended
for path in data-stays uninstalled-etc/mutt.env; do [ -e "$R/var/lib/mutt/$path" ] || fail "without --purge $path stays"; done
for path in /opt/mutt /etc/mutt /run/mutt /var/lib/mutt-deploy /usr/local/bin/muttd /etc/logrotate.d/mutt; do [ ! -e "$R$path" ] || fail "$path is removed"; done
deploys 0 "uninstall --purge" uninstall --unattended --purge
unchanged before "uninstall --purge leaves nothing"

same "nothing that muttd asked of Redis was denied" "" "$(redis ACL LOG)"

# ------------------------------------------------------------------ one process on embedded stores
in_c systemctl stop redis-server postgresql
printf 'TOPOLOGY=single\nMUTT_GRACE_SECONDS=5\n' >"$R/src/single"
AGENT_NAME=sm-agent-linux-amd64
[ "$(uname -m)" = x86_64 ] || AGENT_NAME=sm-agent-linux-arm64
echo "an agent, as far as who only hands it on can tell" >"$R/src/$AGENT_NAME"
deploys 2 "an agent without a checksum is refused" install --unattended --binary /src/muttd --config /src/single
(cd "$R/src" && sha256sum "$AGENT_NAME" >"$AGENT_NAME.sha256")
deploys 0 "a single process needs no stores" install --unattended --binary /src/muttd --config /src/single
active muttd || fail "muttd is active"
for port in 8080 8081 8082 8083 8084 8086 8087 8090; do health $port >/dev/null || fail "health on $port"; done
ok "health answers on every port of the manual here too"
same "hosts get the agent that came along" "$(cat "$R/src/$AGENT_NAME")" "$(in_c curl -fsSk "https://127.0.0.1:9002/$AGENT_NAME")"
rm "$R/src/$AGENT_NAME" "$R/src/$AGENT_NAME.sha256"
key=$(sed -n 's/^INGEST_API_KEY=//p' "$R/etc/mutt/mutt.env")
[ ${#key} -ge 40 ] || fail "a key was made"
grep -q "$key" "$WORK/out" "$R/var/log/mutt-deploy.log" && fail "the key is not shown"
same "an event is taken with the generated key" 200 "$(post "$key")"
grep -q '^mutt_events_accepted_total{input="http"} 1' < <(in_c curl -fsS http://127.0.0.1:8080/metrics 2>/dev/null) || fail "it was counted"
exposure=$(in_c systemd-analyze security --no-pager muttd.service | sed -n 's/.*exposure level for .*: \([0-9.]*\) .*/\1/p')
awk -v e="$exposure" 'BEGIN { exit !(e != "" && e <= 3.0) }' || fail "systemd-analyze security muttd is $exposure"
deploys 0 "uninstall --purge of a single process" uninstall --unattended --purge
unchanged before "it leaves nothing either"

# ------------------------------------------------------------------ firewalls
in_c nft -c -f /src/packaging/firewall/mutt.nft || fail "the example for nftables is valid"
in_c nft -f /src/packaging/firewall/mutt.nft || fail "the example for nftables can be applied"
in_c nft list table inet mutt >"$WORK/nft"
sed 's|10\.0\.0\.0/8|192.168.0.0/16|' "$R/src/packaging/firewall/mutt.nft" >"$R/src/other.nft"
in_c nft -f /src/other.nft; in_c nft list table inet mutt | grep -q '10.0.0.0/8' && fail "networks that were taken out are let in no more"
in_c nft -f /src/packaging/firewall/mutt.nft
same "nftables applied again is as applied once" "$(cat "$WORK/nft")" "$(in_c nft list table inet mutt)"
in_c nft delete table inet mutt
in_c cp -r /etc/firewalld /root/firewalld-before
in_c systemctl start firewalld || fail "firewalld starts"
services() { in_c firewall-cmd "$@" --list-services; }
DEPLOY_ENV=MUTT_DEPLOY_FAIL_AT=start deploys 1 "with firewalld: failing at 'start' ends with 1" install --unattended --binary /src/muttd --config /src/single
case "$(services) $(services --permanent)" in *mutt*) fail "the firewall is closed again" ;; esac
deploys 0 "an installation with firewalld" install --unattended --binary /src/muttd --config /src/single
case "$(services)" in *mutt*) ok "firewalld lets MUTT in" ;; *) fail "firewalld lets MUTT in: $(services)" ;; esac
deploys 0 "uninstall --purge with firewalld" uninstall --unattended --purge
case "$(services) $(services --permanent)" in *mutt*) fail "the firewall is closed after the removal" ;; esac
in_c cp /src/packaging/firewall/mutt-monitoring.firewalld.xml /etc/firewalld/services/mutt-monitoring.xml
in_c firewall-cmd --quiet --reload
in_c firewall-cmd --info-service=mutt-monitoring >/dev/null || fail "the service for monitoring is valid"
in_c systemctl stop firewalld
in_c bash -c 'rm -rf /etc/firewalld && mv /root/firewalld-before /etc/firewalld'
ok "after both the firewall is as before"

# ------------------------------------------------------------------ answering its questions
# topology, Vault, webhook, log level; an empty answer takes the default.
if ! printf 'single\n\n\nDEBUG\n' | in_c /src/packaging/deploy/mutt-deploy.sh install --binary /src/muttd >"$WORK/out" 2>&1; then
  cat "$WORK/out"; fail "an installation that asks"
fi
grep -qx LOG_LEVEL=DEBUG "$R/etc/mutt/mutt.env" || fail "the answers are in mutt.env"
active muttd || fail "muttd is active"
if printf 'no\n' | in_c /src/packaging/deploy/mutt-deploy.sh uninstall --purge >"$WORK/out" 2>&1; then fail "uninstall wants a yes"; fi
active muttd || fail "without a yes nothing is removed"
printf 'yes\n' | in_c /src/packaging/deploy/mutt-deploy.sh uninstall --purge >"$WORK/out" 2>&1 || fail "uninstall with a yes"
unchanged before "an installation that asks, and its removal, leave nothing"
