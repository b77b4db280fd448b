# Sourced by container.sh: an installer that is interrupted, by whatever, leaves the host as it was.
# shellcheck shell=bash disable=SC2154,SC2016  # WORK, R and the functions are container.sh's; inner shells expand

printf 'TOPOLOGY=single\nMUTT_GRACE_SECONDS=5\n' >"$R/src/single"
cp "$R/src/muttd" "$R/src/muttd-next"; echo another build >>"$R/src/muttd-next"
printf '#!/bin/sh\ncase "$1" in serve) exit 1 ;; *) exec /src/muttd "$@" ;; esac\n' >"$R/src/muttd-bad"
chmod +x "$R/src/muttd-next" "$R/src/muttd-bad"
# stable: what must be as before, without data.
stable() { state | grep -v ' /var/lib/mutt/'; }
build() { in_c sha256sum /opt/mutt/bin/muttd | cut -d' ' -f1; }
bad_is_there() { [ "$(build)" = "$bad" ]; }
back() { stable >"$WORK/after"; diff -u "$WORK/good" "$WORK/after" >"$WORK/diff" || { head -n 40 "$WORK/diff"; fail "$1"; }; within 60 active muttd || fail "$1: muttd is active"; ok "$1"; }
# ended FILE: the exit code that the runner has written.
ended() { [ -s "$R/var/tmp/$1" ]; }
# run NAME COMMAND: in a session of its own; its exit code in /var/tmp/NAME.
run() { in_c rm -f "/var/tmp/$1"; in_c bash -c "exec setsid bash -c '$2; echo \$? >/var/tmp/$1'" >/dev/null 2>&1 </dev/null & }
BAD='MUTT_DEPLOY_HEALTH_SECONDS=600 /src/packaging/deploy/mutt-deploy.sh upgrade --unattended --unverified --binary /src/muttd-bad'

state >"$WORK/before"
deploys 0 "a single process is installed" install --unattended --binary /src/muttd --config /src/single
key=$(sed -n 's/^INGEST_API_KEY=//p' "$R/etc/mutt/mutt.env")
stable >"$WORK/good"
bad=$(in_c sha256sum /src/muttd-bad | cut -d' ' -f1)
for signal in HUP INT TERM; do
  # A shell without job control starts what is in the background with SIGINT ignored; `env` puts it back.
  run code "env --default-signal=INT,HUP,TERM $BAD >/var/tmp/out 2>&1"
  within 120 bad_is_there || fail "the bad build is there"
  in_c bash -c "kill -$signal \$(pgrep -o -f 'bash /src/packaging/deploy/mutt-deploy.sh')"
  within 180 ended code || fail "it ends after SIG$signal"
  same "an upgrade that gets SIG$signal ends with 1" 1 "$(cat "$R/var/tmp/code")"
  back "after SIG$signal everything is as before"
done

run code "set -o pipefail; MUTT_DEPLOY_HEALTH_SECONDS=6 /src/packaging/deploy/mutt-deploy.sh upgrade --unattended --unverified --binary /src/muttd-bad 2>&1 | head -n 1"
within 240 ended code || fail "it ends without a reader"
same "an upgrade whose output nobody reads ends with 1" 1 "$(cat "$R/var/tmp/code")"
back "without a reader everything is as before"

in_c rm -f /var/log/mutt-deploy.log; in_c ln -s /dev/full /var/log/mutt-deploy.log
DEPLOY_ENV=MUTT_DEPLOY_HEALTH_SECONDS=6 deploys 1 "with a full disk under the log it ends with 1" upgrade --unattended --unverified --binary /src/muttd-bad
in_c rm -f /var/log/mutt-deploy.log
grep -q 'rolled back' "$WORK/out" || fail "it says that it rolled back"
back "with a full disk under the log everything is as before"

deploys 2 "rollback does not go to the time before MUTT without being asked" rollback --unattended
grep -q 'no MUTT' "$WORK/out" || { cat "$WORK/out"; fail "it says where it would go"; }
back "and has changed nothing"

run code "$BAD >/var/tmp/out 2>&1"
within 120 bad_is_there || fail "the bad build is there"
in_c bash -c "kill -9 \$(pgrep -o -f 'bash /src/packaging/deploy/mutt-deploy.sh')"
within 60 ended code || fail "it was killed"
deploys 2 "after a kill -9 nothing goes on from a half changed host" upgrade --unattended --unverified --binary /src/muttd-next
deploys 0 "status after a kill -9" status
grep -q INTERRUPTED "$WORK/out" || { cat "$WORK/out"; fail "status says that it was interrupted"; }
deploys 0 "rollback after a kill -9" rollback --unattended
back "it goes to the state before the run that was killed, not before the first"

deploys 0 "rollback to the time before MUTT, when asked" rollback --unattended --yes
[ -s "$R/var/lib/mutt/uninstalled-etc/mutt.env" ] || fail "the keys stay with the data"
[ ! -e "$R/opt/mutt" ] || fail "muttd is removed"
ok "the keys stay with the data"
deploys 0 "MUTT is installed again" install --unattended --binary /src/muttd --config /src/single
same "with the keys that its senders have" "$key" "$(sed -n 's/^INGEST_API_KEY=//p' "$R/etc/mutt/mutt.env")"

# ------------------------------------------------------------------ data is not left behind in silence
deploys 2 "going to five services leaves no embedded data behind" install --unattended --binary /src/muttd --topology services
grep -q 'dlq-moog' "$WORK/out" || { cat "$WORK/out"; fail "it says what is there"; }
deploys 2 "nor without Redis" install --unattended --binary /src/muttd --topology services --abandon-embedded
for said in 'left behind, as' 'set REDIS_HOST'; do grep -q "$said" "$WORK/out" || { cat "$WORK/out"; fail "--abandon-embedded is heard"; }; done
active muttd || fail "muttd goes on"

in_c cp /src/packaging/backup/backup_mutt.sh /usr/local/bin/
in_c cp /src/packaging/backup/mutt-backup.service /src/packaging/backup/mutt-backup.timer /etc/systemd/system/
in_c systemctl daemon-reload; in_c systemctl enable -q --now mutt-backup.timer
in_c mkdir /var/lib/mutt.before-restore-1
deploys 0 "the rest is removed" uninstall --unattended --purge
[ ! -e "$R/var/lib/mutt.before-restore-1" ] || fail "also what a restore has put aside"
in_c systemctl is-active --quiet mutt-backup.timer && fail "no timer goes on"
in_c rm -f /var/lib/systemd/timers/stamp-mutt-backup.timer
unchanged before "nothing is left"
