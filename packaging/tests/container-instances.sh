# Sourced by container.sh: further alerters (mutt-alerter@N) go along with every change, the original's and ours.
# shellcheck shell=bash disable=SC2154,SC2016  # WORK, R and the functions are container.sh's; inner shells expand

in_c systemctl start redis-server postgresql
in_c redis-cli config set appendonly yes >/dev/null; in_c redis-cli config set appendfsync always >/dev/null
in_c su postgres -c "psql -qc \"create role mutt_more login password 'pg-test-2'\" -c 'create database mutt_more owner mutt_more'"
in_c bash -c '
  groupadd --system mutt; useradd --system -g mutt --shell /bin/false --home-dir /opt/mutt --create-home mutt
  mkdir -p /etc/mutt; chmod 700 /etc/mutt
  printf "%s\n" REDIS_HOST=localhost REDIS_TLS_ENABLED=false DB_HOST=localhost DB_NAME=mutt_more DB_USER=mutt_more DB_TLS_ENABLED=false MUTT_GRACE_SECONDS=5 DB_PASS=pg-test-2 INGEST_API_KEY=original-ingest-key WEBUI_API_KEY=original-web-key >/etc/mutt/mutt.env
  chown -R mutt:mutt /etc/mutt /opt/mutt; chmod 600 /etc/mutt/mutt.env
  for u in ingestor alerter alerter@; do
    printf "[Unit]\nDescription=the original\n[Service]\nUser=mutt\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n" >/etc/systemd/system/mutt-$u.service
  done
  systemctl daemon-reload; systemctl enable -q --now mutt-ingestor mutt-alerter mutt-alerter@1; systemctl start mutt-alerter@2'
MORE="mutt-alerter@1 mutt-alerter@2"
# running UNIT: the checksum of the program that runs.
running() { in_c bash -c "sha256sum </proc/$(pid_of "$1")/exe | cut -d' ' -f1"; }
run_the() { local unit; for unit in $MORE; do same "$unit runs $1" "$2" "$(running "$unit")"; done; }
sum() { in_c sha256sum "$1" | cut -d' ' -f1; }
cp "$R/src/muttd" "$R/src/muttd-third"; echo a third build >>"$R/src/muttd-third"
printf '#!/bin/sh\ncase "$1" in serve) exit 1 ;; *) exec /src/muttd "$@" ;; esac\n' >"$R/src/muttd-bad"
chmod +x "$R/src/muttd-third" "$R/src/muttd-bad"

state >"$WORK/original"
TAKE=(install --unattended --binary /src/muttd)
DEPLOY_ENV=MUTT_DEPLOY_FAIL_AT=start deploys 1 "over further alerters of the original: failing at the end" "${TAKE[@]}"
unchanged original "they are back, enabled or not, and run"
in_c systemctl start mutt-alerter@blue
deploys 2 "an instance that muttd has no ports for is refused" "${TAKE[@]}"
in_c systemctl stop mutt-alerter@blue
deploys 0 "the original with further alerters is replaced" "${TAKE[@]}"
run_the "muttd" "$(sum /src/muttd)"
for port in 8121 8122; do health $port >/dev/null || fail "health on $port"; done
same "the one that was enabled is" enabled "$(in_c systemctl is-enabled mutt-alerter@1)"
same "the one that was not is not" disabled "$(in_c systemctl is-enabled mutt-alerter@2 || true)"
deploys 0 "status" status
grep -q 'mutt-alerter@1 .*active' "$WORK/out" || { cat "$WORK/out"; fail "status shows them"; }
deploys 0 "an upgrade" upgrade --unattended --unverified --binary /src/muttd-third
run_the "the new build" "$(sum /src/muttd-third)"
DEPLOY_ENV=MUTT_DEPLOY_HEALTH_SECONDS=6 deploys 1 "an upgrade that fails" upgrade --unattended --unverified --binary /src/muttd-bad
for unit in $MORE; do within 60 active "$unit" || fail "$unit is active after it"; done
run_the "the build from before" "$(sum /src/muttd-third)"
deploys 0 "rollback" rollback --unattended
for unit in $MORE; do within 60 active "$unit" || fail "$unit is active after the rollback"; done
run_the "the build before the upgrade" "$(sum /src/muttd)"
deploys 0 "uninstall --purge" uninstall --unattended --purge
for unit in $MORE; do active "$unit" && fail "$unit is stopped"; done
ok "they are removed with the rest"
in_c systemctl stop redis-server postgresql
